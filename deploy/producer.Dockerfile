# The command line and the client, for people and scripts: nothing of the worker, no root. It runs a command
# and ends, so it has no health to check.
#   docker build -f deploy/producer.Dockerfile -t headrace .

FROM python:3.11-slim-bookworm AS build
WORKDIR /build
RUN python -m venv --without-pip /opt/headrace
COPY LICENSE requirements.lock ./
COPY producer producer
COPY deploy/sbom.py ./
RUN pip --python /opt/headrace/bin/python install --no-cache-dir --constraint requirements.lock ./producer \
 && find /opt/headrace -type d \( -name tests -o -name test \) -prune -exec rm -rf {} + \
 && /opt/headrace/bin/python sbom.py >/opt/headrace/sbom.json

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin headrace
COPY --from=build /opt/headrace /opt/headrace
ENV PATH=/opt/headrace/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp
USER 10001
WORKDIR /tmp
ENTRYPOINT ["headrace"]
CMD ["--help"]
