#!/bin/sh
# Backs up both databases, says so to `migrate`, and removes backups that are too many or
# too old. As a hook it runs right before each cleanup:
#
#   [hooks]
#   before_cleanup = ["./deploy/backup/backup.sh"]
#   timeout = "1h"
#   [cleanup]
#   require_backup = "24h"
#
# It is as good in a cron job. Variables, with what they are by default:
#
#   DATABASE_URL, MONGODB_URI          what is backed up; a hook gets both from `migrate`
#   BACKUP_DIR=/var/backups/lockstep   each backup is a folder in it, whole or not there
#   BACKUP_KEEP=7                      so many are kept; 0: all
#   BACKUP_KEEP_DAYS=30                none is kept for longer, but for the newest; 0: for ever
#   BACKUP_COMPRESSION=6               of the Postgres dump, 0 to 9
#   MIGRATE=migrate                    the program
#
# Needs pg_dump and pg_restore as new as the server, mongodump (the MongoDB Database Tools), and
# sha256sum. A password of a URL is seen by nobody: not in the list of processes, not in the backup.
set -eu
umask 077

directory=${BACKUP_DIR:-/var/backups/lockstep}
keep=${BACKUP_KEEP:-7}
keep_days=${BACKUP_KEEP_DAYS:-30}
migrate=${MIGRATE:-migrate}

say() { printf 'backup: %s\n' "$*"; }

# What stands for %40 and the like in a URL.
unescape() {
    LC_ALL=C awk '{
        text = $0; done = ""; digits = "0123456789ABCDEF"
        while (match(text, /%[0-9A-Fa-f][0-9A-Fa-f]/)) {
            hex = toupper(substr(text, RSTART + 1, 2))
            code = (index(digits, substr(hex, 1, 1)) - 1) * 16 + index(digits, substr(hex, 2, 1)) - 1
            done = done substr(text, 1, RSTART - 1) sprintf("%c", code)
            text = substr(text, RSTART + 3)
        }
        printf "%s", done text
    }'
}

# Begun now: what is written from here on may not be in it.
taken_at=$(date -u +%Y-%m-%dT%H:%M:%SZ)
name=$(date -u +%Y%m%dT%H%M%SZ)-$$
mkdir -p "$directory"
unfinished=$directory/.unfinished-$name
mkdir "$unfinished"
trap 'rm -rf "$unfinished" "$unfinished.conf"' EXIT
trap 'exit 143' TERM
trap 'exit 130' INT

if [ -n "${DATABASE_URL:-}" ]; then
    url=$DATABASE_URL
    authority=${url#*://}
    authority=${authority%%/*}
    case $authority in
        *:*@*)
            login=${authority%%@*}
            PGPASSWORD=$(printf '%s\n' "${login#*:}" | unescape)
            export PGPASSWORD
            url=${url%%://*}://${login%%:*}@${url#*@}
            ;;
    esac
    pg_dump --format=custom --compress="${BACKUP_COMPRESSION:-6}" --no-password \
        --file="$unfinished/postgres.dump" --dbname="$url"
    # Whether it can be read to its end.
    pg_restore --list "$unfinished/postgres.dump" >/dev/null
fi
if [ -n "${MONGODB_URI:-}" ]; then
    printf 'uri: "%s"\n' "$MONGODB_URI" >"$unfinished.conf"
    mongodump --quiet --config="$unfinished.conf" --gzip --archive="$unfinished/mongo.archive.gz"
    rm "$unfinished.conf"
fi
(cd "$unfinished" && sha256sum -- * >../.sums-$name && mv ../.sums-$name SHA256SUMS)
sync
mv "$unfinished" "$directory/$name"
backup=$directory/$name
say "$backup is done"

# Each of the store that it is of. Where this fails, the backup is there and does not count.
record() { # record STORE FILE
    [ -f "$backup/$2" ] || return 0
    "$migrate" backup record --store "$1" --location "$backup/$2" \
        --size "$(($(wc -c <"$backup/$2")))" --taken-at "$taken_at"
}
record postgres postgres.dump
record mongo mongo.archive.gz

# Only when there is a new one: the newest is never removed.
number=0
for old in $(cd "$directory" && ls -d [0-9]*Z-* | sort -r); do
    number=$((number + 1))
    [ "$number" -gt 1 ] || continue
    why=
    if [ "$keep" -gt 0 ] && [ "$number" -gt "$keep" ]; then
        why="$keep are kept"
    elif [ "$keep_days" -gt 0 ] && [ -n "$(find "$directory/$old" -maxdepth 0 -mtime "+$keep_days")" ]; then
        why="older than $keep_days days"
    fi
    [ -n "$why" ] || continue
    rm -rf "${directory:?}/$old"
    say "removed $directory/$old: $why"
done
# What was killed in the middle, more than a day ago.
find "$directory" -maxdepth 1 -name '.unfinished-*' -mtime +0 -exec rm -rf {} +
