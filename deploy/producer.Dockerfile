# The command line and the client, for people and scripts: nothing of the worker, no root.
#   docker build -f deploy/producer.Dockerfile -t headrace .

FROM python:3.11-slim-bookworm AS build
WORKDIR /build
RUN python -m venv --without-pip /opt/headrace
COPY LICENSE requirements.lock ./
COPY producer producer
RUN pip --python /opt/headrace/bin/python install --no-cache-dir --constraint requirements.lock ./producer

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin headrace
COPY --from=build /opt/headrace /opt/headrace
ENV PATH=/opt/headrace/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /tmp
ENTRYPOINT ["headrace"]
CMD ["--help"]
