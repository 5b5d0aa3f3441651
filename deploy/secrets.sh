#!/bin/sh
# Creates the secrets of docker-compose.yml: a private CA and certificates, a password for each Redis user, and a
# login for Flower. `make secrets` runs it; existing files are kept.
#
#   secrets.sh                    create missing files
#   secrets.sh certs              create new certificates from the same CA
#   secrets.sh passwords          create new passwords; the old ones stay valid in users.acl
#   secrets.sh forget             remove the old passwords from users.acl
#
# HEADRACE_SECRETS  the folder; default ./secrets. Only its owner can open it. The files in it are readable by all,
#                   because they are mounted into containers whose users differ.
# HEADRACE_HOST     the host name of this machine in browsers; default localhost
set -eu
cd "$(dirname "$0")/.."

folder=${HEADRACE_SECRETS:-./secrets}
host=${HEADRACE_HOST:-localhost}
users='admin celery flower gateway installer listener metrics notifier operator producer worker'
days=397 # the longest validity that browsers accept

command -v openssl >/dev/null || { echo "openssl is needed, and is not on PATH" >&2; exit 1; }
umask 077
mkdir -p "$folder"

# Overwrites the file in place: a container keeps the mounted file even if another one takes its name.
write() { # NAME < content
  cat >"$folder/$1.new"
  cat "$folder/$1.new" >"$folder/$1"
  rm "$folder/$1.new"
  chmod 444 "$folder/$1"
}

ca() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=Headrace private CA" \
    -addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign,cRLSign \
    -keyout "$folder/ca.key" -out "$folder/ca.new" 2>/dev/null
  write ca.pem <"$folder/ca.new"
  rm "$folder/ca.new"
}

certificate() { # NAME HOST...: NAME.pem and NAME.key
  name=$1
  shift
  names=$(printf ',DNS:%s' "$@")
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" \
    -keyout "$folder/new.key" -out "$folder/new.csr" 2>/dev/null
  printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n' "${names#,}" >"$folder/new.ext"
  openssl x509 -req -in "$folder/new.csr" -CA "$folder/ca.pem" -CAkey "$folder/ca.key" -days "$days" \
    -set_serial "0x$(openssl rand -hex 16)" -extfile "$folder/new.ext" -out "$folder/new.pem" 2>/dev/null
  write "$name.pem" <"$folder/new.pem"
  write "$name.key" <"$folder/new.key"
  rm "$folder"/new.*
}

certificates() {
  certificate redis redis localhost
  certificate web "$host" localhost
}

password() { # USER: create USER.password, and USER.url with the password in it
  new=$(openssl rand -hex 32)
  printf '%s' "$new" | write "$1.password"
  printf 'rediss://%s:%s@redis:6379/0?ssl_ca_certs=/run/secrets/ca' "$1" "$new" | write "$1.url"
}

# Redis gets digests of the passwords. The permissions of each user are in docs/reference/acl.md, and tested.
digest() { openssl dgst -sha256 -r <"$folder/$1.password" | cut -d ' ' -f 1; }

users_acl() { # write users.acl: a line per user with its digest, and its former digests if $1 is keep
  {
    # Nobody can log in as this user, but Redis replays its append-only file as it, and skips transactions that the
    # user may not run: without these permissions a restart would lose jobs.
    echo 'user default off ~* &* +@all'
    for user in $users; do
      former=
      if [ "$1" = keep ] && [ -f "$folder/users.acl" ]; then
        former=$(sed -n "s/^user $user on \(#[#0-9a-f ]*\)reset.*/\1/p" "$folder/users.acl")
      fi
      case $former in *"$(digest "$user")"*) ;; *) former="$former#$(digest "$user") " ;; esac
      if [ "$user" = admin ]; then
        echo "user admin on ${former}resetchannels ~* &* +@all"
      else
        sed -n "s/^user $user on >[A-Z]*-PASSWORD /user $user on $former/p" docs/reference/acl.md
      fi
    done
  } >"$folder/acl.new"
  [ "$(wc -l <"$folder/acl.new")" -eq "$(($(echo "$users" | wc -w) + 1))" ] || { echo "docs/reference/acl.md lacks a line for one of: $users" >&2; exit 1; }
  write users.acl <"$folder/acl.new"
  rm "$folder/acl.new"
}

case ${1:-missing} in
missing)
  [ -f "$folder/ca.key" ] || { ca; certificates; }
  for user in $users; do [ -f "$folder/$user.url" ] || password "$user"; done
  [ -f "$folder/flower.login" ] || printf 'flower:%s' "$(openssl rand -hex 16)" | write flower.login
  [ -f "$folder/grafana.password" ] || openssl rand -hex 16 | write grafana.password
  # Yours to write: the endpoints of webhooks, each with its URL and its secrets.
  [ -f "$folder/notify.toml" ] || { : >"$folder/notify.toml"; chmod 644 "$folder/notify.toml"; }
  users_acl keep
  # docker-compose.yml reads the folder from .env.
  touch .env
  grep -q '^HEADRACE_SECRETS=' .env || printf 'HEADRACE_SECRETS=%s\n' "$folder" >>.env
  echo "$folder is complete. Flower's login is in $folder/flower.login; browsers need $folder/ca.pem to trust it."
  ;;
certs) certificates ;;
passwords)
  for user in $users; do password "$user"; done
  printf 'flower:%s' "$(openssl rand -hex 16)" | write flower.login
  users_acl keep
  ;;
forget) users_acl drop ;;
*)
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0" >&2
  exit 2
  ;;
esac
