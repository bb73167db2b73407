FROM python:3.11-slim AS builder
WORKDIR /app
RUN python -m venv .venv
COPY requirements/run.txt requirements/run.txt
RUN .venv/bin/python -m pip install --no-cache-dir --require-hashes --requirement requirements/run.txt
COPY pyproject.toml ./
COPY gen/python gen/python
COPY server server
# Editable as in development: the code is read from where it is copied to.
RUN .venv/bin/python -m pip install --no-cache-dir --no-deps --no-build-isolation --editable . --editable gen/python \
    && .venv/bin/python -m compileall -q server gen/python \
    && .venv/bin/python -m pip uninstall --quiet --yes setuptools pip

FROM python:3.11-slim
RUN useradd --system --uid 10001 --no-create-home --home-dir /app angarium \
    && install --directory --owner=angarium --mode=0700 /app/data
WORKDIR /app
COPY --from=builder /app /app
ENV PATH=/app/.venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 \
    ANGARIUM_LISTEN=0.0.0.0:50051 ANGARIUM_HTTP_LISTEN=0.0.0.0:8088
USER angarium
VOLUME /app/data
EXPOSE 50051 8088
HEALTHCHECK --interval=10s --timeout=3s --start-period=15s --retries=3 CMD ["python", "-m", "server", "health"]
STOPSIGNAL SIGTERM
CMD ["python", "-m", "server"]
