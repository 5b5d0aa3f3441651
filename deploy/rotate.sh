#!/bin/sh
# Replaces certificates or passwords while everything runs.
#
#   rotate.sh certs        new certificates from the same CA, for Redis (no connection is cut) and for browsers
#   rotate.sh passwords    new passwords, for all that runs here at once; the former ones go on being taken ...
#   rotate.sh forget       ... until this: run it when every producer has its new URL
set -eu
cd "$(dirname "$0")/.."

if command -v docker-compose >/dev/null; then compose=docker-compose; else compose='docker compose'; fi
folder=${HEADRACE_SECRETS:-$(sed -n 's/^HEADRACE_SECRETS=//p' .env)}

redis() { # ADMIN-PASSWORD WORD...: the password by stdin, where no list of processes shows it
  password=$1
  shift
  said=$(printf 'AUTH admin %s\n%s\n' "$password" "$*" |
    $compose exec -T redis redis-cli --tls --cacert /run/secrets/ca)
  [ "$said" = "$(printf 'OK\nOK')" ] || { echo "Redis refused: $said" >&2; exit 1; }
}

case ${1:-} in
certs)
  deploy/secrets.sh certs
  redis "$(cat "$folder/admin.password")" CONFIG SET tls-cert-file /run/secrets/redis_cert tls-key-file /run/secrets/redis_key
  $compose restart caddy
  ;;
passwords)
  former=$(cat "$folder/admin.password")
  deploy/secrets.sh passwords
  redis "$former" ACL LOAD
  deploy/roll.sh
  # All else that has one: those of the profiles, too, where they run.
  others=$($compose --profile trial --profile monitoring ps -q flower trial exporter)
  [ -z "$others" ] || docker restart --time 60 $others >/dev/null
  ;;
forget)
  deploy/secrets.sh forget
  redis "$(cat "$folder/admin.password")" ACL LOAD
  ;;
*)
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0" >&2
  exit 2
  ;;
esac
