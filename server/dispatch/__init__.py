"""When and how often: claim, plan, intent, send, settle; look-ups and polls; the configuration follower; drain."""
