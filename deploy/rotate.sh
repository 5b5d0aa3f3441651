#!/bin/sh
# Replaces certificates or passwords while the stack runs.
#
#   rotate.sh certs        create new certificates from the same CA, for Redis (connections stay open) and browsers
#   rotate.sh passwords    create new passwords and give them to the services here; the old ones stay valid
#   rotate.sh forget       make the old passwords invalid; run it when every producer has its new URL
set -eu
cd "$(dirname "$0")/.."

if command -v docker-compose >/dev/null; then compose=docker-compose; else compose='docker compose'; fi
folder=${HEADRACE_SECRETS:-$(sed -n 's/^HEADRACE_SECRETS=//p' .env)}

redis() { # ADMIN-PASSWORD COMMAND...: the password goes to stdin, where no process list shows it
  password=$1
  shift
  reply=$(printf 'AUTH admin %s\n%s\n' "$password" "$*" |
    $compose exec -T redis redis-cli --tls --cacert /run/secrets/ca)
  [ "$reply" = "$(printf 'OK\nOK')" ] || { echo "Redis refused the command: $reply" >&2; exit 1; }
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
  # The other services with a password, also those of the profiles, if they run: one container after the other.
  services=$($compose --profile trial --profile monitoring --profile webhooks ps -q flower gateway notifier trial exporter)
  [ -z "$services" ] || docker restart --time 60 $services >/dev/null
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
