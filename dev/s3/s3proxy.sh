#!/usr/bin/env bash
# A real S3 server over a directory (S3Proxy, from Maven) for the quick suite; needs Java and Maven; 127.0.0.1 only.
# Create-if-absent on PUT is atomic, which is all that Sluice's commit needs; If-Match is not.
#
#   s3proxy.sh install | start | stop | kill | pause | resume | status | wipe | env
#
# Environment: S3_RUN (data and log; ./run), S3_PORT (19000), S3_BUCKET (sluice), JAVA. Keys: testkey / testsecret.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
LIB=$HERE/lib
RUN=$(realpath -m "${S3_RUN:-$HERE/run}")
PORT=${S3_PORT:-19000}
BUCKET=${S3_BUCKET:-sluice}
JAVA=${JAVA:-java}

die() { echo "s3proxy.sh: $*" >&2; exit 1; }
listens() { (exec 3<>"/dev/tcp/127.0.0.1/$PORT") 2>/dev/null; }

# Prints the server's pid while it runs. The command line is compared, so that a recycled pid does not pass.
pid_of() {
  local pid
  pid=$(cat "$RUN/pid" 2>/dev/null) || return 1
  { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -qF "$RUN/s3proxy.conf" && echo "$pid"
}

install_jars() {
  [ -e "$LIB/.ok" ] && [ "$LIB/.ok" -nt "$HERE/pom.xml" ] && return
  rm -rf "$LIB"
  mvn -B -q -Dstyle.color=never -f "$HERE/pom.xml" dependency:copy-dependencies -DincludeScope=runtime \
    -DoutputDirectory="$LIB" >&2
  touch "$LIB/.ok"
}

show_env() {
  echo "export AWS_ENDPOINT=http://127.0.0.1:$PORT AWS_ALLOW_HTTP=true AWS_REGION=us-east-1" \
    "AWS_ACCESS_KEY_ID=testkey AWS_SECRET_ACCESS_KEY=testsecret SLUICE__STORE__URL=s3://$BUCKET/t"
}

start() {
  pid_of >/dev/null && { show_env; return; }
  install_jars
  listens && die "port $PORT is in use by something else"
  mkdir -p "$RUN/data/$BUCKET"
  cat >"$RUN/s3proxy.conf" <<CONF
s3proxy.endpoint=http://127.0.0.1:$PORT
s3proxy.authorization=aws-v2-or-v4
s3proxy.identity=testkey
s3proxy.credential=testsecret
jclouds.provider=filesystem-nio2
jclouds.identity=x
jclouds.credential=x
jclouds.filesystem.basedir=$RUN/data
CONF
  echo '<configuration><root level="WARN"/></configuration>' >"$RUN/logback.xml"
  setsid "$JAVA" -Xmx512m -Dlogback.configurationFile="$RUN/logback.xml" -cp "$LIB/*" org.gaul.s3proxy.Main \
    --properties "$RUN/s3proxy.conf" </dev/null >"$RUN/server.log" 2>&1 &
  echo $! >"$RUN/pid"
  for _ in $(seq 300); do
    listens && { show_env; return; }
    kill -0 "$(cat "$RUN/pid")" 2>/dev/null || break
    sleep 0.1
  done
  tail -5 "$RUN/server.log" >&2
  die "did not start"
}

signal() {
  local pid
  pid=$(pid_of) || die "not running"
  kill "-$1" "$pid"
}

stop() {
  local pid
  pid=$(pid_of) || return 0
  kill -CONT "$pid"
  kill -TERM "$pid"
  while pid_of >/dev/null; do sleep 0.1; done
  rm -f "$RUN/pid"
}

case ${1:-} in
  install) install_jars ;;
  start) start ;;
  stop) stop ;;
  kill) signal KILL ;;
  pause) signal STOP ;;
  resume) signal CONT ;;
  status) if pid=$(pid_of); then echo "pid $pid, port $PORT"; else echo stopped; exit 3; fi ;;
  wipe) # only a directory that this script made
    stop
    [ ! -e "$RUN/s3proxy.conf" ] || rm -rf "$RUN"
    ;;
  env) show_env ;;
  *) sed -n '5p' "$0" >&2; exit 2 ;;
esac
