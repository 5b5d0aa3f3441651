# The worker: client, worker and scikit-learn. No Flower, no pip environment to build in, no root.
#   docker build -f deploy/worker.Dockerfile -t headrace-worker .

FROM python:3.11-slim-bookworm AS build
WORKDIR /build
RUN python -m venv --without-pip /opt/headrace
COPY LICENSE requirements.lock ./
COPY producer producer
COPY worker worker
RUN pip --python /opt/headrace/bin/python install --no-cache-dir --constraint requirements.lock ./producer ./worker

FROM python:3.11-slim-bookworm
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin headrace
COPY --from=build /opt/headrace /opt/headrace
ENV PATH=/opt/headrace/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HEADRACE_MODELS=/models
USER 10001
WORKDIR /tmp
VOLUME /models
# exec form: the worker is process 1 and gets the TERM that lets it finish what it has claimed.
ENTRYPOINT ["headrace"]
CMD ["worker"]
