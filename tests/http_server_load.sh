#!/bin/bash
# http_server_load.sh SERVER [SECONDS]: stops the example under load, and tells
# what its clients saw. Needs wrk and python3. Run by hand:
#
#   ./bazelw run //tests:http_server_load
#
# wrk keeps 8 connections busy; beside it a client opens a connection for each
# request and counts its answers. SIGTERM comes in the middle, then 5 s of drain.
# A connection that was accepted and has sent its request must be answered, until
# the listener is closed. Then the same with a request that never ends: forced
# after the grace, and named.
set -euo pipefail

server=$1
seconds=${2:-20}
drain=5
for program in wrk python3; do
  command -v $program > /dev/null || { echo "needs Debian's package $program"; exit 1; }
done
scratch=$(mktemp -d)
trap 'kill $(jobs -p) 2> /dev/null || true; rm -rf "$scratch"' EXIT

start() {  # DRAIN GRACE: sets pid and port
  : > "$scratch/out"
  "$server" 0 "$@" > "$scratch/out" 2> "$scratch/err" &
  pid=$!
  until grep -q Listening "$scratch/out"; do kill -0 $pid; done
  port=$(sed -n 's/Listening on port //p' "$scratch/out")
}

expect() {  # WHAT SHOULD IS
  echo "$1: $3"
  [[ $2 == "$3" ]] || { echo "  should be $2"; failed=1; }
}

cat > "$scratch/client.py" <<'PYTHON'
import socket, sys
port = int(sys.argv[1])
request = b"GET / HTTP/1.1\r\nHost: load\r\nConnection: close\r\n\r\n"
answered = failed = 0
while True:
    try:
        connection = socket.create_connection(("127.0.0.1", port))
    except ConnectionRefusedError:
        break  # the listener is closed
    try:
        connection.sendall(request)
        answer = b""
        while some := connection.recv(65536):
            answer += some
    except ConnectionResetError:
        # The kernel took the connection, the server did not accept it any more:
        # so it is refused from now on.
        answer = b"refused"
    connection.close()
    if answer.startswith(b"HTTP/1.1 200"):
        answered += 1
    elif answer == b"refused":
        try:
            socket.create_connection(("127.0.0.1", port)).close()
            failed += 1
        except ConnectionRefusedError:
            break
    else:
        failed += 1
print(answered, failed)
PYTHON

failed=0
echo "== $seconds s of load, SIGTERM in the middle, $drain s of drain"
start "${drain}s" 30s
python3 "$scratch/client.py" "$port" > "$scratch/client" &
client=$!
# Until before the end of the drain: what wrk sees fail, the server failed.
wrk -t1 -c8 -d$((seconds / 2 + drain - 1))s "http://127.0.0.1:$port/" > "$scratch/wrk" &
wrk=$!
sleep $((seconds / 2))
kill -TERM $pid
wait $wrk
cat "$scratch/wrk"
status=0
wait $pid || status=$?
wait $client
read -r answered unanswered < "$scratch/client"
expect "exit status of the server, killed by SIGTERM" 143 $status
expect "errors that wrk saw" 0 "$(grep -cE 'Socket errors|Non-2xx' "$scratch/wrk" || true)"
echo "connections of the second client that were answered: $answered"
expect "accepted and not answered" 0 "$unanswered"

echo "== the same with a request that never ends, grace of 2 s"
start ${drain}s 2s
python3 -c "
import socket
connection = socket.create_connection(('127.0.0.1', $port))
connection.sendall(b'GET /hang HTTP/1.1\r\nHost: load\r\n\r\n')
connection.recv(1)" 2> /dev/null &
until grep -q Hanging "$scratch/out"; do kill -0 $pid; done
wrk -t1 -c8 -d$((drain - 1))s "http://127.0.0.1:$port/" > "$scratch/wrk" &
wrk=$!
kill -TERM $pid
status=0
wait $pid || status=$?
wait $wrk
cat "$scratch/err"
expect "exit status of the server, killed by SIGTERM" 143 $status
expect "errors that wrk saw" 0 "$(grep -cE 'Socket errors|Non-2xx' "$scratch/wrk" || true)"
expect "requests named as stuck" 1 "$(grep -c '^tocsin: *connection 1 ' "$scratch/err" || true)"
exit $failed
