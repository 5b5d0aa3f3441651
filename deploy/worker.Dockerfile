# The worker: client, worker and runtimes. No Flower, no compiler, no pip in its environment, no root.
#   docker build -f deploy/worker.Dockerfile -t headrace-worker .
# More of the worker's extras: --build-arg EXTRAS=treelite,onnx,lightgbm,xgboost,catboost,s3,signing

FROM python:3.11-slim-bookworm AS build
WORKDIR /build
RUN python -m venv --without-pip /opt/headrace
COPY LICENSE requirements.lock ./
COPY producer producer
COPY worker worker
RUN pip --python /opt/headrace/bin/python install --no-cache-dir --constraint requirements.lock ./producer ./worker
ARG EXTRAS=treelite,onnx
COPY deploy/sbom.py ./
RUN pip --python /opt/headrace/bin/python install --no-cache-dir --constraint requirements.lock "./worker[$EXTRAS]" \
 # Tests of libraries, a tenth of the whole, serve nobody here.
 && find /opt/headrace -type d \( -name tests -o -name test \) -prune -exec rm -rf {} + \
 && /opt/headrace/bin/python sbom.py >/opt/headrace/sbom.json

FROM python:3.11-slim-bookworm
# LightGBM needs the library of OpenMP, which the slim image lacks; XGBoost and CatBoost bring theirs.
RUN apt-get update && apt-get install --yes --no-install-recommends libgomp1 && rm -rf /var/lib/apt/lists/*
RUN useradd --uid 10001 --no-create-home --shell /usr/sbin/nologin headrace
COPY --from=build /opt/headrace /opt/headrace
ENV PATH=/opt/headrace/bin:$PATH PYTHONUNBUFFERED=1 PYTHONDONTWRITEBYTECODE=1 HOME=/tmp HEADRACE_MODELS=/models HEADRACE_READY_FILE=/tmp/ready
USER 10001
WORKDIR /tmp
VOLUME /models
# Ready is: models loaded, their examples right, jobs being taken.
HEALTHCHECK --interval=2s --timeout=2s --start-period=60s --retries=30 CMD ["test", "-f", "/tmp/ready"]
# exec form: the worker is process 1 and gets the TERM that lets it finish what it has claimed.
ENTRYPOINT ["headrace"]
CMD ["worker"]
