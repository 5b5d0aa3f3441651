#!/bin/sh
# Replaces all workers without an interruption: loads the functions of the current image into Redis, starts the same
# number of new workers with this image and the current settings and secrets, waits until all of them are ready, and
# stops the old ones. If a new worker is not ready in time, the new ones are removed and the old ones continue.
#
#   roll.sh                                            restart with new settings or secrets
#   HEADRACE_WORKER_IMAGE=headrace-worker:2 roll.sh    upgrade; with the former image, roll back
#
# HEADRACE_READY_SECONDS  seconds the new workers may take to become ready; default 120
set -eu
cd "$(dirname "$0")/.."

if command -v docker-compose >/dev/null; then compose=docker-compose; else compose='docker compose'; fi
deadline=$(($(date +%s) + ${HEADRACE_READY_SECONDS:-120}))

# The functions of the new image; those of the old one stay loaded for the workers that run.
$compose run --rm -T functions >/dev/null || {
  echo "the image cannot load its functions into Redis; the old workers continue" >&2
  exit 1
}

old=$($compose ps -q worker)
[ -n "$old" ] || { echo "no worker runs; start the stack with docker-compose up -d" >&2; exit 1; }
count=$(echo "$old" | wc -l)
$compose up -d --no-deps --no-recreate --scale worker=$((2 * count)) worker
new=$($compose ps -q worker | grep -vF "$old")

ready() { docker inspect -f '{{.State.Health.Status}}' $new | grep -cx healthy || true; }
while [ "$(ready)" -lt "$count" ]; do
  if [ "$(date +%s)" -ge "$deadline" ]; then
    docker logs --tail 5 "$(echo "$new" | head -1)" >&2 || true
    docker rm -f $new >/dev/null
    echo "the new workers were not ready in time and are removed; the old ones continue" >&2
    exit 1
  fi
  sleep 1
done
docker stop --time 60 $old >/dev/null
docker rm $old >/dev/null
echo "$count workers replaced"
