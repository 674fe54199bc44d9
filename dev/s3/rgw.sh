#!/usr/bin/env bash
# A real distributed S3 server: Ceph (a monitor, an OSD and a RADOS gateway) from Debian's packages, for the tests of
# fencing and faults; needs root; 127.0.0.1 only.
# PUT with If-None-Match: * is atomic; on the completion of a multipart upload it is ignored.
#
#   rgw.sh install | start | stop | kill | status | wipe | env
#
# Environment: RGW_RUN (data and logs; ./run-rgw), S3_PORT (19001), S3_BUCKET (sluice), RGW_MON_PORT (16789).
# Keys: testkey / testsecret.
set -euo pipefail

HERE=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
RUN=$(realpath -m "${RGW_RUN:-$HERE/run-rgw}")
PORT=${S3_PORT:-19001}
BUCKET=${S3_BUCKET:-sluice}
MON_PORT=${RGW_MON_PORT:-16789}
EMPTY_SHA256=e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855

die() { echo "rgw.sh: $*" >&2; exit 1; }
answers() { curl -s -o /dev/null "http://127.0.0.1:$PORT/"; }

# Prints the pids of the daemons that run, the gateway first: it has to stop before what it stands on.
pids() {
  local name pid
  for name in rgw osd mon; do
    pid=$(cat "$RUN/$name.pid" 2>/dev/null) || continue
    { tr '\0' ' ' <"/proc/$pid/cmdline"; } 2>/dev/null | grep -qF "$RUN/ceph.conf" && echo "$pid" || true
  done
}

install_packages() {
  command -v radosgw >/dev/null && command -v ceph-mon >/dev/null && return
  apt-get -qq update
  DEBIAN_FRONTEND=noninteractive apt-get -qq install -y --no-install-recommends \
    ceph-mon ceph-osd ceph-mgr radosgw curl >/dev/null
}

show_env() {
  echo "export AWS_ENDPOINT=http://127.0.0.1:$PORT AWS_ALLOW_HTTP=true AWS_REGION=us-east-1" \
    "AWS_ACCESS_KEY_ID=testkey AWS_SECRET_ACCESS_KEY=testsecret SLUICE__STORE__URL=s3://$BUCKET/t"
}

write_conf() {
  cat >"$RUN/ceph.conf" <<CONF
[global]
fsid = $(cat /proc/sys/kernel/random/uuid)
mon host = [v2:127.0.0.1:$MON_PORT/0]
mon initial members = a
public addr = 127.0.0.1
cluster addr = 127.0.0.1
osd heartbeat addr = 127.0.0.1
ms bind ipv4 = true
ms bind ipv6 = false
auth cluster required = cephx
auth service required = cephx
auth client required = cephx
keyring = $RUN/keyring
run dir = $RUN/run
log file = $RUN/log/\$name.log
admin socket = $RUN/run/\$name.asok
pid file = $RUN/run/\$name.pid
osd pool default size = 1
osd pool default min size = 1
osd pool default pg num = 8
osd pool default pgp num = 8
osd crush chooseleaf type = 0
mon allow pool size one = true
mon warn on pool no redundancy = false
mon data avail warn = 1
mon data avail crit = 1
auth allow insecure global id reclaim = true
osd objectstore = bluestore
bluestore block size = 21474836480
osd memory target = 939524096
bluefs buffered io = true

[mon.a]
host = localhost
mon data = $RUN/mon
mon addr = 127.0.0.1:$MON_PORT
[osd.0]
host = localhost
osd data = $RUN/osd
[client.admin]
rgw frontends = beast endpoint=127.0.0.1:$PORT tcp_nodelay=1
rgw data = $RUN/rgw
rgw enable usage log = false
rgw run sync thread = false
rgw enable gc threads = true
rgw thread pool size = 64
CONF
}

make_monitor() {
  ceph-authtool --create-keyring "$RUN/keyring" --gen-key -n mon. --cap mon 'allow *'
  ceph-authtool "$RUN/keyring" --gen-key -n client.admin --cap mon 'allow *' --cap osd 'allow *' --cap mgr 'allow *'
  ceph-authtool "$RUN/keyring" --gen-key -n osd.0 --cap mon 'allow profile osd' --cap osd 'allow *' \
    --cap mgr 'allow profile osd'
  monmaptool --create --clobber --fsid "$(awk '/^fsid/{print $3}' "$RUN/ceph.conf")" \
    --addv a "[v2:127.0.0.1:$MON_PORT]" "$RUN/monmap"
  ceph-mon -c "$RUN/ceph.conf" -i a --mkfs --monmap "$RUN/monmap" --keyring "$RUN/keyring"
}

make_osd() {
  local id
  id=$(cat /proc/sys/kernel/random/uuid)
  timeout 30 ceph -c "$RUN/ceph.conf" osd new "$id"
  timeout 30 ceph -c "$RUN/ceph.conf" auth add osd.0 mon 'allow profile osd' osd 'allow *' \
    mgr 'allow profile osd' -i "$RUN/keyring" || true # known already from the keyring
  ceph-osd -c "$RUN/ceph.conf" -i 0 --mkfs --osd-uuid "$id"
}

daemon() {
  local name=$1
  shift
  setsid "$@" </dev/null >"$RUN/log/$name.out" 2>&1 &
  echo $! >"$RUN/$name.pid"
}

start() {
  local new=0
  install_packages
  [ -z "$(pids)" ] || { show_env; return; }
  [ -e "$RUN/made" ] || { new=1; rm -rf "$RUN"; mkdir -p "$RUN"/{run,log,mon,osd,rgw}; write_conf; }
  export CEPH_CONF=$RUN/ceph.conf
  [ $new = 0 ] || make_monitor >"$RUN/log/make-mon.out" 2>&1
  daemon mon ceph-mon -c "$CEPH_CONF" -i a -f
  [ $new = 0 ] || make_osd >"$RUN/log/make-osd.out" 2>&1
  daemon osd ceph-osd -c "$CEPH_CONF" -i 0 -f
  daemon rgw radosgw -c "$CEPH_CONF" -n client.admin -f
  for _ in $(seq 300); do answers && break; sleep 0.2; done
  answers || { tail -5 "$RUN"/log/*.out >&2; die "did not start"; }
  if [ $new = 1 ]; then
    radosgw-admin -c "$CEPH_CONF" user create --uid=t --display-name=t --access-key=testkey \
      --secret-key=testsecret >/dev/null 2>"$RUN/log/user.err"
    curl -fsS -X PUT --aws-sigv4 aws:amz:us-east-1:s3 --user testkey:testsecret \
      -H "x-amz-content-sha256:$EMPTY_SHA256" "http://127.0.0.1:$PORT/$BUCKET" >/dev/null
    touch "$RUN/made"
  fi
  show_env
}

stop() {
  local pid
  for pid in $(pids); do
    kill -CONT "$pid" 2>/dev/null || true
    kill "$pid" 2>/dev/null || true
    for _ in $(seq 200); do kill -0 "$pid" 2>/dev/null || break; sleep 0.1; done
  done
}

case ${1:-} in
  install) install_packages ;;
  start) start ;;
  stop) stop ;;
  kill) for pid in $(pids); do kill -KILL "$pid"; done ;;
  status) if [ -n "$(pids)" ]; then echo "pids $(pids | tr '\n' ' '), port $PORT"; else echo stopped; exit 3; fi ;;
  wipe) # only a directory that this script made
    stop
    [ ! -e "$RUN/ceph.conf" ] || rm -rf "$RUN"
    ;;
  env) show_env ;;
  *) sed -n '6p' "$0" >&2; exit 2 ;;
esac
