#!/usr/bin/env bash
# Real Apache Kafka (KRaft) for tests and trials, from Maven's jars; needs Java 17 and Maven; 127.0.0.1 only.
#
#   kafka.sh install | start [NODE..] | stop [NODE..] | kill [NODE..] | pause [NODE..] | resume [NODE..]
#            status [NODE..] | wipe | bootstrap | create-topic NAME PARTITIONS [KEY=VALUE..] | tool CLASS ARGS..
#
# Environment: KAFKA_RUN (data and logs; ./run), KAFKA_PORT (19092), KAFKA_NODES (1, or 3), KAFKA_HEAP (512m),
# KAFKA_READY_S (60), KAFKA_STOP_S (20), JAVA.
# Ports of node i, with b = KAFKA_PORT + 10 * (i - 1): b broker, b+1 controller, b+2 a second broker listener which
# advertises b+5. A fault proxy from b+5 to b+2 stands between the broker and whoever is given 127.0.0.1:(b+5).
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
LIB=$HERE/lib
RUN=$(realpath -m "${KAFKA_RUN:-$HERE/run}")
PORT=${KAFKA_PORT:-19092}
NODES=${KAFKA_NODES:-1}
HEAP=${KAFKA_HEAP:-512m}
READY_S=${KAFKA_READY_S:-60}
STOP_S=${KAFKA_STOP_S:-20}
JAVA=${JAVA:-java}
REPLICAS=$((NODES < 3 ? 1 : 3))
IN_SYNC=$((NODES < 3 ? 1 : 2))

die() { echo "kafka.sh: $*" >&2; exit 1; }
usage() { sed -n '4,5p' "$0" >&2; exit 2; }
broker_port() { echo $((PORT + 10 * ($1 - 1))); }
controller_port() { echo $(($(broker_port "$1") + 1)); }
nodes() { if [ $# -gt 0 ]; then echo "$@"; else seq -s' ' "$NODES"; fi; }
listens() { (exec 3<>"/dev/tcp/127.0.0.1/$1") 2>/dev/null; }

bootstrap() {
  local i list=
  for i in $(seq "$NODES"); do list+="${list:+,}127.0.0.1:$(broker_port "$i")"; done
  echo "$list"
}

# Prints the pid of node $1 while it runs. The command line is compared, so that a recycled pid does not pass.
pid_of() {
  local pid
  pid=$(cat "$RUN/n$1/pid" 2>/dev/null) || return 1
  { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -qF "$RUN/n$1/server.properties" && echo "$pid"
}

install_jars() {
  [ -e "$LIB/.ok" ] && [ "$LIB/.ok" -nt "$HERE/pom.xml" ] && return
  rm -rf "$LIB"
  mvn -B -q -Dstyle.color=never -f "$HERE/pom.xml" dependency:copy-dependencies >&2
  touch "$LIB/.ok"
}

tool() {
  "$JAVA" -Xmx128m -XX:TieredStopAtLevel=1 -XX:+UseSerialGC \
    -Dlog4j2.configurationFile="$HERE/log4j2.properties" -cp "$LIB/*" "$@"
}

write_properties() {
  local i=$1 b c j voters=
  b=$(broker_port "$i")
  c=$(controller_port "$i")
  for j in $(seq "$NODES"); do voters+="${voters:+,}$j@127.0.0.1:$(controller_port "$j")"; done
  {
    echo "node.id=$i"
    echo "controller.quorum.voters=$voters"
    echo "listeners=PLAINTEXT://127.0.0.1:$b,CONTROLLER://127.0.0.1:$c,PROXIED://127.0.0.1:$((b + 2))"
    echo "advertised.listeners=PLAINTEXT://127.0.0.1:$b,PROXIED://127.0.0.1:$((b + 5))"
    echo "log.dirs=$RUN/n$i/data"
    echo "default.replication.factor=$REPLICAS"
    echo "min.insync.replicas=$IN_SYNC"
    for j in offsets.topic transaction.state.log share.coordinator.state.topic; do
      echo "$j.replication.factor=$REPLICAS"
    done
    echo "transaction.state.log.min.isr=$IN_SYNC"
    echo "share.coordinator.state.topic.min.isr=$IN_SYNC"
    cat "$HERE/server.properties.in"
  } >"$RUN/n$i/server.properties"
}

start_node() {
  local i=$1 dir=$RUN/n$1
  listens "$(broker_port "$i")" && die "port $(broker_port "$i") is in use by something else"
  mkdir -p "$dir"
  write_properties "$i"
  if [ ! -e "$dir/data/meta.properties" ]; then
    tool kafka.tools.StorageTool format --ignore-formatted -t "$(cat "$RUN/cluster.id")" \
      -c "$dir/server.properties" >"$dir/format.log" 2>&1 || die "format: $(cat "$dir/format.log")"
  fi
  # the ready line that is waited for must be this start's
  [ ! -e "$dir/server.log" ] || mv -f "$dir/server.log" "$dir/server.log.old"
  : >"$dir/server.log"
  setsid "$JAVA" -Xmx"$HEAP" -XX:+UseG1GC -XX:+ExitOnOutOfMemoryError -Djava.awt.headless=true \
    -Dlog4j2.configurationFile="$HERE/log4j2.properties" -cp "$LIB/*" kafka.Kafka "$dir/server.properties" \
    </dev/null >>"$dir/server.log" 2>&1 &
  echo $! >"$dir/pid"
}

# Ready means that the node says so in its log and its port answers.
wait_ready() {
  local i=$1 since=$2 dir=$RUN/n$1
  until grep -q 'Kafka Server started' "$dir/server.log" && listens "$(broker_port "$i")"; do
    kill -0 "$(cat "$dir/pid")" 2>/dev/null || { tail -20 "$dir/server.log" >&2; die "node $i died"; }
    [ $((SECONDS - since)) -lt "$READY_S" ] || {
      tail -20 "$dir/server.log" >&2
      die "node $i is not ready after $READY_S s"
    }
    sleep 0.1
  done
}

start() {
  local i since wanted
  install_jars
  wanted=$(nodes "$@")
  mkdir -p "$RUN"
  # '+' and '/' are mapped away: an id that begins with '-' would be read as an option
  [ -s "$RUN/cluster.id" ] || head -c16 /dev/urandom | base64 | tr '+/' 'xy' | tr -d '=\n' >"$RUN/cluster.id"
  for i in $wanted; do pid_of "$i" >/dev/null || start_node "$i"; done
  since=$SECONDS
  for i in $wanted; do wait_ready "$i" "$since"; done
  bootstrap
}

stop() {
  local i pid since=$SECONDS
  for i in $(nodes "$@"); do
    pid=$(pid_of "$i") || continue
    kill -CONT "$pid"
    kill -TERM "$pid"
  done
  for i in $(nodes "$@"); do
    while pid=$(pid_of "$i"); do
      [ $((SECONDS - since)) -lt "$STOP_S" ] || kill -KILL "$pid" 2>/dev/null || true
      sleep 0.1
    done
    rm -f "$RUN/n$i/pid"
  done
}

signal() {
  local name=$1 i pid
  shift
  for i in $(nodes "$@"); do
    if pid=$(pid_of "$i"); then kill "-$name" "$pid"; else echo "node $i is not running" >&2; fi
  done
}

status() {
  local i pid code=0
  for i in $(nodes "$@"); do
    if pid=$(pid_of "$i"); then
      echo "node $i: pid $pid, $(awk '/VmRSS/{print int($2/1024)}' "/proc/$pid/status") MiB, port $(broker_port "$i")"
    else
      echo "node $i: stopped"
      code=3
    fi
  done
  return $code
}

create_topic() {
  [ $# -ge 2 ] || usage
  local name=$1 partitions=$2 entry settings=()
  shift 2
  for entry in "$@"; do settings+=(--config "$entry"); done
  tool org.apache.kafka.tools.TopicCommand --bootstrap-server "$(bootstrap)" --create --if-not-exists \
    --topic "$name" --partitions "$partitions" --replication-factor "$REPLICAS" "${settings[@]}"
}

command=${1:-}
[ $# -eq 0 ] || shift
case $command in
  install) install_jars ;;
  start) start "$@" ;;
  stop) stop "$@" ;;
  status) status "$@" ;;
  kill) signal KILL "$@" ;;
  pause) signal STOP "$@" ;;
  resume) signal CONT "$@" ;;
  bootstrap) bootstrap ;;
  create-topic) create_topic "$@" ;;
  tool) tool "$@" ;;
  wipe) # only a directory that this script made
    stop
    [ ! -e "$RUN/cluster.id" ] || rm -rf "$RUN"
    ;;
  *) usage ;;
esac
