#!/bin/sh
# Stops the servers of a sandbox and removes its folder.
#
# As the reaper it is given the folder, and stdin is a pipe that only the
# process which made the sandbox holds open: the pipe ends when that process
# ends, however it ends. Started by hand, as the file `stop` in the folder of
# a sandbox that was kept, it has no argument and begins at once.

trap '' HUP INT TERM
PATH=$PATH:/usr/bin:/bin

if [ $# -gt 0 ]; then
    dir=$1
    last=
    while read -r line; do last=$line; done
    [ "$last" = keep ] && exit 0
else
    dir=$(cd "$(dirname "$0")" && pwd -P) || exit 1
    [ -d "$dir/pids" ] || [ -d "$dir/ending" ] || { echo "$dir is not the folder of a sandbox" >&2; exit 1; }
fi
cd / || exit 1

# Nothing can start from here on: a process writes itself into this folder
# before it turns into a server, and ends when it cannot.
mv "$dir/pids" "$dir/ending" 2>/dev/null

# Whether a process is still there and still the one that wrote the file: every
# command line of ours names the folder, and a process that ended has none.
ours() {
    if [ -r "/proc/$1/cmdline" ]; then
        grep -qF -- "$dir" "/proc/$1/cmdline" 2>/dev/null
    else
        ps -o command= -p "$1" 2>/dev/null | grep -qF -- "$dir"
    fi
}

pids=
for file in "$dir"/ending/*; do
    [ -e "$file" ] || continue
    # It exists, so its number is written within the same breath.
    tries=0
    until [ -s "$file" ] || [ $tries -ge 100 ]; do tries=$((tries + 1)); sleep 0.01; done
    pid=
    read -r pid <"$file"
    if [ -z "$pid" ] || ! ours "$pid"; then continue; fi
    case $file in
        # An immediate shutdown: it ends its own children, which are in groups of
        # their own, and gives shared memory back.
        */postgres) kill -s QUIT "$pid" ;;
        # It ends after its current phase; a server that it runs for that would
        # leave shared memory behind.
        */initdb) kill -s INT "$pid" ;;
        *) kill -s KILL -- "-$pid" ;;
    esac 2>/dev/null
    pids="$pids $pid"
done

tries=0
for pid in $pids; do
    while ours "$pid"; do
        tries=$((tries + 1))
        # After six seconds: Postgres itself gives its children five.
        [ $tries -gt 300 ] && kill -s KILL -- "-$pid" 2>/dev/null
        [ $tries -gt 400 ] && break
        sleep 0.02
    done
done

# A Postgres that had to be killed leaves a segment of shared memory. It wrote
# down which: the second number of the seventh line.
if [ -s "$dir/postgres/data/postmaster.pid" ]; then
    segment=$(sed -n '7s/^ *[0-9][0-9]* *\([0-9][0-9]*\) *$/\1/p' "$dir/postgres/data/postmaster.pid")
    [ -z "$segment" ] || ipcrm -m "$segment" 2>/dev/null
fi

if [ -s "$dir/containers" ] && read -r docker <"$dir/docker"; then
    while read -r container; do
        "$docker" rm -f -v "$container" >/dev/null 2>&1 </dev/null
    done <"$dir/containers"
fi

# A child of a server that had to be killed may still be writing.
tries=0
until rm -rf "$dir" 2>/dev/null && [ ! -e "$dir" ]; do
    tries=$((tries + 1))
    [ $tries -lt 100 ] || exit 1
    sleep 0.05
done
