# Built in one stage, run in another: the image holds Python, the locked dependencies and the bot.

FROM python:3.13-slim AS build
RUN python -m venv /opt/animatic
ENV PATH="/opt/animatic/bin:$PATH" PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /build
COPY requirements.lock ./
RUN pip install --require-hashes --requirement requirements.lock
COPY pyproject.toml README.md LICENSE ./
COPY bot bot
COPY cogs cogs
RUN pip install --no-deps --no-build-isolation .

FROM python:3.13-slim
RUN useradd --system --uid 10001 --home-dir /srv/animatic --create-home animatic \
 && install --directory --owner animatic --group animatic /srv/animatic/data
COPY --from=build /opt/animatic /opt/animatic
ENV PATH="/opt/animatic/bin:$PATH" PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER animatic
WORKDIR /srv/animatic
VOLUME /srv/animatic/data
STOPSIGNAL SIGTERM
# `animatic run` touches data/alive every few seconds while its event loop turns and the database takes its heartbeat
HEALTHCHECK --interval=30s --timeout=5s --start-period=60s --retries=3 \
  CMD ["python", "-c", "import os, sys, time; sys.exit(time.time() - os.stat('data/alive').st_mtime > 60)"]
ENTRYPOINT ["animatic"]
CMD ["run"]
