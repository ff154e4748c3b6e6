#!/bin/sh
# Plays one user of the demo of compose.yaml: demo.sh NAME. The volume /demo keeps the passwords, which are made at the
# first start, and the list of other users that were found in the room.
#
# The demo's messages are public, so the demo talks only in a room without other users. Each script checks that as the
# user "demo": a check as alice would look to bob's script like the arrival of alice.
set -eu
umask 077
trap 'exit 143' TERM INT
attempts=120 # two a second, until the server answers
name=$1

# Makes a password unless the file exists. Several scripts may do so at the same time; the first file counts.
make_password() { # file
    [ -e "$1" ] && return
    head -c 24 /dev/urandom | base64 >"$1.$name"
    ln "$1.$name" "$1" 2>/dev/null || true
    rm "$1.$name"
}

# Prints the users online and the senders of messages, one per line. An action (/me) begins with a star: * zed waves.
users_in() { # output of a client
    printf '%s\n' "$1" | sed -nE 's/^\[welcome .*; online: //p' | tr ' ' '\n'
    printf '%s\n' "$1" | sed -nE 's/^\[(history|public|direct) #[^]]*\] (\* )?([^ :]+).*/\3/p'
}

make_password /demo/demo.password
make_password "/demo/$name.password"

if [ ! -e /demo/others ]; then
    # Exit code 1: the server can't be reached yet.
    code=1
    while [ $code = 1 ] && [ $attempts -gt 0 ]; do
        code=0
        seen=$(printf 'CH 500\nEX\n' | chatclient demo --password-file /demo/demo.password --plain 2>&1) || code=$?
        [ $code != 1 ] || sleep 0.5
        attempts=$((attempts - 1))
    done
    if [ $code != 0 ]; then
        printf '%s\n' "$seen" "[demo] $name says nothing, because it is not known who uses this room"
        exit $code
    fi
    others=$(users_in "$seen" | grep -vxE 'alice|bob|carol|demo' | sort -u | paste -sd ' ' -)
    if [ -n "$others" ]; then
        echo "$others" >"/demo/others.$name"
        mv "/demo/others.$name" /demo/others
    fi
fi

if [ -e /demo/others ]; then
    echo "[demo] $name says nothing, because others use this room: $(cat /demo/others)"
    echo "[demo] To see the conversation: make demo, which has a room of its own"
    exit 0
fi

chatclient "$name" --password-file "/demo/$name.password" --script "/scripts/$name.chat" &
trap 'kill -TERM $!' TERM INT
code=0
wait $! || code=$?
# A signal ends the first wait before the client has ended.
[ $code -le 128 ] || wait $! || code=$?
if [ $code = 3 ]; then
    echo "[demo] $name says nothing, because this room has another $name than the demo's: see docs/operations.md"
fi
exit $code
