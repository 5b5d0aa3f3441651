#!/bin/sh
# Replaces the workers one generation by the next, without a moment in which none serves: starts as many as there
# are beside them, with the image, settings and secrets of now; waits until all of those are ready; stops the old.
# New ones that are not ready in time are removed, and the old serve on.
#
#   roll.sh                                       a restart, new settings, new secrets
#   HEADRACE_WORKER_IMAGE=headrace-worker:2 roll.sh    an upgrade, and with the former name its rollback
#
# HEADRACE_READY_SECONDS  how long the new ones may take to be ready, 120 without it
set -eu
cd "$(dirname "$0")/.."

if command -v docker-compose >/dev/null; then compose=docker-compose; else compose='docker compose'; fi
deadline=$(($(date +%s) + ${HEADRACE_READY_SECONDS:-120}))

old=$($compose ps -q worker)
[ -n "$old" ] || { echo "no worker runs: docker-compose up -d" >&2; exit 1; }
count=$(echo "$old" | wc -l)
$compose up -d --no-deps --no-recreate --scale worker=$((2 * count)) worker
new=$($compose ps -q worker | grep -vF "$old")

ready() { docker inspect -f '{{.State.Health.Status}}' $new | grep -cx healthy || true; }
while [ "$(ready)" -lt "$count" ]; do
  if [ "$(date +%s)" -ge "$deadline" ]; then
    docker logs --tail 5 "$(echo "$new" | head -1)" >&2 || true
    docker rm -f $new >/dev/null
    echo "the new workers were not ready in time, and are removed; the old ones serve on" >&2
    exit 1
  fi
  sleep 1
done
docker stop --time 60 $old >/dev/null
docker rm $old >/dev/null
echo "$count workers replaced"
