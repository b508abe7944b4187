# The worker's image: Python, the worker with its live board, and its weights; no torch, no compiler, no root.
#   docker build -t rugo-worker .

FROM python:3.12-slim AS builder
WORKDIR /build
RUN python -m venv /opt/venv
COPY pyproject.toml constraints.txt README.md LICENSE ./
COPY worker worker
# training/ stays out, and the command that would need it with it
RUN --mount=type=cache,target=/root/.cache/pip \
    /opt/venv/bin/pip install -c constraints.txt '.[board,otel]' \
    && rm -f /opt/venv/bin/rugo-train

FROM python:3.12-slim
RUN groupadd --system --gid 10001 rugo \
    && useradd --system --uid 10001 --gid 10001 --no-create-home --home-dir /nonexistent --shell /usr/sbin/nologin rugo
WORKDIR /app
COPY --from=builder /opt/venv /opt/venv
COPY model_weights model_weights
ENV PATH=/opt/venv/bin:$PATH \
    PYTHONUNBUFFERED=1 \
    PYTHONDONTWRITEBYTECODE=1 \
    RUGO_MODEL=/app/model_weights/rugo-tiny2 \
    RUGO_HTTP_HOST=0.0.0.0 \
    RUGO_HTTP_PORT=8080
# by number, so that an orchestrator can see that it is not root
USER 10001:10001
EXPOSE 8080
STOPSIGNAL SIGTERM
# live, not ready: a worker that waits for its broker must not be restarted for it
HEALTHCHECK --interval=10s --timeout=5s --start-period=60s --retries=3 \
    CMD ["python", "-c", "import os, urllib.request as u; u.build_opener(u.ProxyHandler({})).open('http://127.0.0.1:' + os.environ['RUGO_HTTP_PORT'] + '/live', timeout=3)"]
ENTRYPOINT ["rugo-worker"]
CMD ["run"]
