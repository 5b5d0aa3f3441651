# The HTTP gateway and the notifier: the client and the gateway, nothing of the worker, no scikit-learn, no root.
#   docker build -f deploy/gateway.Dockerfile -t headrace-gateway .

FROM python:3.11-slim-bookworm AS build
WORKDIR /build
RUN python -m venv --without-pip /opt/headrace
COPY LICENSE requirements.lock ./
COPY producer producer
COPY gateway gateway
COPY deploy/sbom.py ./
RUN pip --python /opt/headrace/bin/python install --no-cache-dir --constraint requirements.lock ./producer ./gateway \
 && find /opt/headrace -type d \( -name tests -o -name test \) -prune -exec rm -rf {} + \
 && /opt/headrace/bin/python sbom.py >/opt/headrace/sbom.json

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin headrace
COPY --from=build /opt/headrace /opt/headrace
ENV PATH=/opt/headrace/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp \
    HEADRACE_GATEWAY_ADDRESS=0.0.0.0 HEADRACE_GATEWAY_METRICS_ADDRESS=0.0.0.0 HEADRACE_GATEWAY_METRICS_PORT=9464
USER 10001
WORKDIR /tmp
# The API, and health with metrics, which no proxy may lead to.
EXPOSE 8080 9464
# Ready is: Redis answers, and the contracts of the models were read.
HEALTHCHECK --interval=2s --timeout=4s --start-period=30s --retries=30 \
  CMD ["python", "-c", "import urllib.request as u; u.urlopen('http://127.0.0.1:9464/ready', timeout=3)"]
# exec form: the gateway is process 1 and gets the TERM that lets it answer the requests it has.
ENTRYPOINT ["headrace"]
CMD ["gateway"]
