"""The parameters of a call, as both providers take them: in the query and in a form."""

from aiohttp import web

Form = dict[str, list[str]]
"""Every value of each name, in the order that they came in."""


class BadForm(ValueError):
    """The body cannot be read as a form."""


async def form_of(request: web.Request) -> Form:
    """What a call was given; a name in its body stands over the same name in its query. Files are left out."""
    try:
        posted = await request.post()
    except (ValueError, LookupError):
        raise BadForm from None
    form: Form = {name: list(request.query.getall(name)) for name in request.query}
    for name in posted:
        form[name] = [value for value in posted.getall(name) if isinstance(value, str)]
    return form


def first(form: Form, name: str) -> str:
    """The first value of a name; empty where there is none."""
    return next(iter(form.get(name, ())), "")
