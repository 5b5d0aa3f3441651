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
RUN pip --python /opt/headrace/bin/python install --no-cache-dir --constraint requirements.lock './worker[flower]'

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin headrace
COPY --from=build /opt/headrace /opt/headrace
ENV PATH=/opt/headrace/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1
USER 10001
WORKDIR /tmp
EXPOSE 5555
ENTRYPOINT ["headrace"]
CMD ["flower", "--address", "0.0.0.0"]
