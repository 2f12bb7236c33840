#!/bin/sh
# Tries whether a backup of backup.sh can be restored: both stores into new databases, then
# `migrate verify` and `migrate status` there. On servers that are thrown away afterwards:
#
#   migrate sandbox -- ./deploy/backup/restore-drill.sh
#
# Without an argument it takes the newest backup in BACKUP_DIR. The servers are those of
# DATABASE_URL and MONGODB_URI; no database that is there is touched. Ends with 0 when the
# backup is as good as what it was made of.
#
# Needs psql and pg_restore, mongorestore, sha256sum; mongosh, to remove the new MongoDB
# database where the server is not thrown away.
set -eu

directory=${BACKUP_DIR:-/var/backups/lockstep}
migrate=${MIGRATE:-migrate}
began=$(date +%s)

say() { printf 'drill: %s\n' "$*"; }
fail() {
    printf 'drill: %s\n' "$*" >&2
    exit 1
}

backup=${1:-}
[ -n "$backup" ] || backup=$(ls -d "$directory"/[0-9]*Z-* 2>/dev/null | sort | tail -n 1)
[ -n "$backup" ] || fail "there is no backup in $directory"
[ -f "$backup/SHA256SUMS" ] || fail "$backup is no backup: it has no SHA256SUMS"
backup=$(cd "$backup" && pwd)
say "$backup"
(cd "$backup" && sha256sum --check --quiet SHA256SUMS) || fail "a file is not what was backed up"

# The same server, another database.
beside() { # beside URL DATABASE
    query=
    case $1 in *\?*) query="?${1#*\?}" ;; esac
    rest=${1%%\?*}
    scheme=${rest%%://*}
    rest=${rest#*://}
    printf '%s://%s/%s%s' "$scheme" "${rest%%/*}" "$2" "$query"
}

database=drill_$(date -u +%Y%m%d%H%M%S)_$$
conf=$(mktemp)
made_postgres=
made_mongo=
finish() {
    code=$?
    rm -f "$conf"
    if [ -n "$made_postgres" ]; then
        psql --quiet --no-psqlrc "$DATABASE_URL" -c "DROP DATABASE IF EXISTS $database WITH (FORCE)" || code=1
    fi
    if [ -n "$made_mongo" ]; then
        if command -v mongosh >/dev/null; then
            mongosh --quiet "$mongo_uri" --eval 'db.dropDatabase()' >/dev/null || code=1
        else
            say "no mongosh here: the MongoDB database $database stays, unless its server goes"
        fi
    fi
    exit "$code"
}
trap finish EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

postgres_url=
mongo_uri=
if [ -f "$backup/postgres.dump" ]; then
    psql --quiet --no-psqlrc "$DATABASE_URL" -c "CREATE DATABASE $database"
    made_postgres=yes
    postgres_url=$(beside "$DATABASE_URL" "$database")
    # Roles are the server's, not the database's: a throwaway server has none of them.
    pg_restore --exit-on-error --no-owner --no-privileges --dbname="$postgres_url" "$backup/postgres.dump"
    say "restored Postgres"
fi
if [ -f "$backup/mongo.archive.gz" ]; then
    mongo_uri=$(beside "$MONGODB_URI" "$database")
    printf 'uri: "%s"\n' "$(beside "$MONGODB_URI" "")" >"$conf"
    made_mongo=yes
    # shellcheck disable=SC2016 # they are variables of mongorestore
    mongorestore --quiet --config="$conf" --gzip --archive="$backup/mongo.archive.gz" \
        --nsFrom='$database$.$collection$' --nsTo="$database.\$collection\$"
    say "restored MongoDB"
fi

"$migrate" --postgres "$postgres_url" --mongo "$mongo_uri" verify
"$migrate" --postgres "$postgres_url" --mongo "$mongo_uri" status
say "the backup can be restored; it took $(($(date +%s) - began)) s"
