# The dashboard: Flower on the worker's Celery app, which brings the worker's packages with it.
#   docker build -f deploy/flower.Dockerfile -t headrace-flower .

FROM python:3.11-slim-bookworm AS build
WORKDIR /build
RUN python -m venv --without-pip /opt/headrace
COPY LICENSE requirements.lock ./
COPY producer producer
COPY worker worker
# Up to here and the next line as in worker.Dockerfile, so that its layers serve twice.
RUN pip --python /opt/headrace/bin/python install --no-cache-dir --constraint requirements.lock ./producer ./worker
COPY deploy/sbom.py ./
RUN pip --python /opt/headrace/bin/python install --no-cache-dir --constraint requirements.lock './worker[flower]' \
 && find /opt/headrace -type d \( -name tests -o -name test \) -prune -exec rm -rf {} + \
 && /opt/headrace/bin/python sbom.py >/opt/headrace/sbom.json

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin headrace
COPY --from=build /opt/headrace /opt/headrace
ENV PATH=/opt/headrace/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
USER 10001
WORKDIR /tmp
EXPOSE 5555
# Flower answers this one without a login, and says nothing with it.
HEALTHCHECK --interval=5s --timeout=4s --start-period=60s --retries=12 \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:5555/healthcheck', timeout=3)"]
ENTRYPOINT ["headrace"]
CMD ["flower", "--address", "0.0.0.0"]
