#!/bin/sh
# Makes what docker-compose.yml asks for: a private CA, the certificates it signs, a password for each Redis user
# and a login for Flower. `make secrets` runs it; it keeps what is there.
#
#   secrets.sh                    make what is missing
#   secrets.sh certs              the certificates anew, from the same CA
#   secrets.sh passwords          passwords anew; the former ones stay valid in users.acl ...
#   secrets.sh forget             ... until this
#
# HEADRACE_SECRETS  the folder, ./secrets without it. Only you can open it; the files in it are readable to all, as
#                   each is mounted into the containers that need it, whose users are not you.
# HEADRACE_HOST     the name by which browsers reach this machine; localhost without it
set -eu
cd "$(dirname "$0")/.."

folder=${HEADRACE_SECRETS:-./secrets}
host=${HEADRACE_HOST:-localhost}
users='admin celery flower metrics operator producer worker'
days=397 # what browsers take at the most

command -v openssl >/dev/null || { echo "this needs openssl, and none is on PATH" >&2; exit 1; }
umask 077
mkdir -p "$folder"

# Over what is there, never beside it: a container that has a file mounted sees the file it was, not its name.
write() { # NAME < content
  cat >"$folder/$1.new"
  cat "$folder/$1.new" >"$folder/$1"
  rm "$folder/$1.new"
  chmod 444 "$folder/$1"
}

ca() {
  openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 3650 -subj "/CN=Headrace private CA" \
    -addext basicConstraints=critical,CA:TRUE,pathlen:0 -addext keyUsage=critical,keyCertSign,cRLSign \
    -keyout "$folder/ca.key" -out "$folder/ca.made" 2>/dev/null
  write ca.pem <"$folder/ca.made"
  rm "$folder/ca.made"
}

certificate() { # NAME HOST...: NAME.pem and NAME.key
  name=$1
  shift
  names=$(printf ',DNS:%s' "$@")
  openssl req -new -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -subj "/CN=$1" \
    -keyout "$folder/made.key" -out "$folder/made.csr" 2>/dev/null
  printf 'subjectAltName=%s\nextendedKeyUsage=serverAuth\nbasicConstraints=CA:FALSE\n' "${names#,}" >"$folder/made.ext"
  openssl x509 -req -in "$folder/made.csr" -CA "$folder/ca.pem" -CAkey "$folder/ca.key" -days "$days" \
    -set_serial "0x$(openssl rand -hex 16)" -extfile "$folder/made.ext" -out "$folder/made.pem" 2>/dev/null
  write "$name.pem" <"$folder/made.pem"
  write "$name.key" <"$folder/made.key"
  rm "$folder"/made.*
}

certificates() {
  certificate redis redis localhost
  certificate web "$host" localhost
}

password() { # USER: a new one, and the URL that holds it
  new=$(openssl rand -hex 32)
  printf '%s' "$new" | write "$1.password"
  printf 'rediss://%s:%s@redis:6379/0?ssl_ca_certs=/run/secrets/ca' "$1" "$new" | write "$1.url"
}

# Redis is given the digests, not the passwords; what each user may do is in docs/reference/acl.md, and tested there.
digest() { openssl dgst -sha256 -r <"$folder/$1.password" | cut -d ' ' -f 1; }

users_acl() { # one line a user, with the digests it had before ($1 = keep) and the one it has now
  {
    # Nobody can be that user. Redis loads its log as it, and skips transactions it may not run: without rights a restart loses jobs.
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
  } >"$folder/acl.made"
  [ "$(wc -l <"$folder/acl.made")" -eq 8 ] || { echo "docs/reference/acl.md lacks one of: $users" >&2; exit 1; }
  write users.acl <"$folder/acl.made"
  rm "$folder/acl.made"
}

case ${1:-missing} in
missing)
  [ -f "$folder/ca.key" ] || { ca; certificates; }
  for user in $users; do [ -f "$folder/$user.url" ] || password "$user"; done
  [ -f "$folder/flower.login" ] || printf 'flower:%s' "$(openssl rand -hex 16)" | write flower.login
  [ -f "$folder/grafana.password" ] || openssl rand -hex 16 | write grafana.password
  users_acl keep
  # From here on docker-compose.yml finds them.
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
forget) users_acl anew ;;
*)
  sed -n '2,/^set /{/^set /d;s/^# \{0,1\}//;p;}' "$0" >&2
  exit 2
  ;;
esac
