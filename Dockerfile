# A tag, not a digest: Debian's security updates come with a rebuild.
FROM python:3.13.15-slim-trixie AS build
ENV PIP_NO_CACHE_DIR=1 PIP_DISABLE_PIP_VERSION_CHECK=1
WORKDIR /srv/collector
RUN ["python", "-m", "venv", ".venv"]
# The packages change seldom and stay in a layer of their own. The lock is one for all; it also holds the test tools.
COPY requirements.lock ./
RUN [".venv/bin/pip", "install", "--require-hashes", "--requirement", "requirements.lock"]
COPY pyproject.toml README.md LICENSE settings.toml celeryconfig.py ./
COPY app ./app
COPY tasks ./tasks
RUN [".venv/bin/pip", "install", "--no-deps", "--no-build-isolation", "--editable", "."]

FROM python:3.13.15-slim-trixie
# No log files: who runs the container keeps what goes to stderr, and rotates it.
ENV PATH=/srv/collector/.venv/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 COLLECTOR_COLLECTOR__LOG_DIR=none
RUN useradd --system --uid 10001 --no-create-home --shell /usr/sbin/nologin collector \
    && install --directory --owner=collector --mode=0750 /srv/collector/data /srv/collector/objects
COPY --from=build /srv/collector /srv/collector
WORKDIR /srv/collector
USER 10001
VOLUME /srv/collector/data
EXPOSE 9090
STOPSIGNAL SIGTERM
# For the web process; others have no port and switch it off.
HEALTHCHECK --interval=15s --timeout=5s --start-period=20s --retries=3 CMD ["python", "-c", \
    "import os, urllib.request as r; r.urlopen('http://127.0.0.1:%s/health' % os.environ.get('PORT', 9090), timeout=4)"]
CMD ["python", "-m", "app", "web", "--host", "0.0.0.0"]
