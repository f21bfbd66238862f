#!/bin/sh
# systemd-box.sh - boot a real systemd as PID 1 of its own namespaces, on a
# machine whose own PID 1 is something else, to test service units for real:
# Type=notify, WatchdogSec=, Restart=, sandboxing, timers.
#
#   systemd-box.sh <workdir> start          boot; returns once it is running
#   systemd-box.sh <workdir> ctl ARGS...    systemctl ARGS inside the box
#   systemd-box.sh <workdir> exec CMD...    run CMD inside the box
#   systemd-box.sh <workdir> stop           shut it down and clean up
#
# Put unit files in <workdir>/units before 'start' (or later, followed by
# 'ctl daemon-reload'); those in the box's /etc/systemd/system are seen as well.  The box sees this machine's files, but has its own
# /run, process table, cgroup root and host name, and its own copy-on-write /etc
# and /var, so nothing it does there stays.  The rest of the file system is the
# machine's: a service that runs as root without ProtectSystem= can write to it.
# The network is shared, so a service in the box can be reached on loopback.
# Process ids that systemctl prints are the box's: signal with 'ctl kill'.
# Memory, task and CPU limits take effect only where cgroup v2 has those
# controllers (not on a hybrid machine); IPAddressDeny= works.
#
# Needs: root, util-linux, systemd (the Debian package; it need not be running).
set -eu

work=$(realpath -m "${1:?work dir}")
verb=${2:?start, ctl, exec or stop}
shift 2
mkdir -p "$work/units" "$work/log"
name=box-$(printf %s "$work" | cksum | cut -d' ' -f1)

box_pid() {   # host pid of the box's PID 1
    [ -s "$work/init.pid" ] && pid=$(cat "$work/init.pid") && [ -d "/proc/$pid" ] && echo "$pid"
}
inside() { nsenter -t "$(box_pid)" -m -p -u -i -C -- "$@"; }

# Where can a cgroup v2 tree be had?  /sys/fs/cgroup itself on a v2 machine,
# /sys/fs/cgroup/unified on a hybrid one.
if [ "$(stat -fc %T /sys/fs/cgroup)" = cgroup2fs ]; then cg2=/sys/fs/cgroup
else cg2=/sys/fs/cgroup/unified; fi

case $verb in
start)
    box_pid >/dev/null && { echo "already running" >&2; exit 1; }
    # A cgroup of its own: systemd moves every process it finds in its root
    # cgroup, and those must be none but the box's.
    mkdir -p "$cg2/$name"
    cat > "$work/boot.sh" <<'BOOT'
set -eu
work=$1
mount --make-rprivate /     # nothing leaks out ...
mount --make-rshared /      # ... but credentials and sandboxes need a shared tree
mount -t tmpfs -o mode=755 tmpfs /run
mkdir -p /run/lock /run/systemd/system
for d in etc var; do
    mkdir -p "/run/box/$d/u" "/run/box/$d/w"
    mount -t overlay -o "lowerdir=/$d,upperdir=/run/box/$d/u,workdir=/run/box/$d/w" overlay "/$d"
done
hostname box
mount --bind /dev/null /dev/console      # nothing on the real console
umount -R -l /sys/fs/cgroup 2>/dev/null || true
mount -t cgroup2 cgroup2 /sys/fs/cgroup
# Just the test's units: no login, no network set-up, no other service.
cat > "$work/units/box.target" <<UNIT
[Unit]
Description=test box
AllowIsolate=yes
DefaultDependencies=no
UNIT
for t in sysinit basic shutdown network network-online multi-user timers sockets paths slices umount final; do
    [ -e "$work/units/$t.target" ] || printf '[Unit]\nDescription=%s (box)\nDefaultDependencies=no\n' "$t" > "$work/units/$t.target"
done
printf '[Unit]\nDescription=power off\nDefaultDependencies=no\n' > "$work/units/poweroff.target"
# A journal of its own, so that 'exec journalctl -u NAME' works.  Not the
# syslog socket, which would put a link into the shared /dev.
cp /lib/systemd/system/systemd-journald.service /lib/systemd/system/systemd-journald.socket "$work/units/"
sed -i 's/ systemd-journald-dev-log.socket//; s/ systemd-journald-audit.socket//; s/ syslog.socket//; /^DeviceAllow\|^SystemCallFilter\|^OOMScore/d' "$work/units/systemd-journald.service"
mkdir -p /run/systemd/journald.conf.d
printf '[Journal]\nStorage=volatile\nReadKMsg=no\nAudit=no\n' > /run/systemd/journald.conf.d/box.conf
printf 'Wants=systemd-journald.socket\nAfter=systemd-journald.socket\n' >> "$work/units/box.target"
export container=box SYSTEMD_UNIT_PATH="$work/units:/etc/systemd/system" SYSTEMD_GENERATOR_PATH=/nonexistent SYSTEMD_ENVIRONMENT_GENERATOR_PATH=/nonexistent
exec /lib/systemd/systemd --system --unit=box.target \
    --log-target=journal --log-level="${BOX_LOG_LEVEL:-info}" --show-status=no
BOOT
    rm -f "$work/init.pid"
    # setsid keeps the terminal's signals away.  The inner sh enters the
    # cgroup before unsharing, so that the cgroup namespace is rooted there.
    setsid sh -c '
        set -e
        echo $$ > "$1/cgroup.procs"
        exec unshare --mount --pid --cgroup --uts --ipc --fork --mount-proc --propagation private \
            sh "$2/boot.sh" "$2"
    ' box-launch "$cg2/$name" "$work" </dev/null >"$work/log/systemd.log" 2>&1 &
    launcher=$!
    echo "$launcher" > "$work/launcher.pid"
    i=0
    while :; do
        child=$(cat "/proc/$launcher/task/$launcher/children" 2>/dev/null | tr -d ' ') || true
        if [ -n "${child:-}" ]; then
            echo "$child" > "$work/init.pid"
            state=$(inside systemctl is-system-running 2>/dev/null) || true
            case ${state:-} in running|degraded) break ;; esac
        fi
        i=$((i+1))
        [ $i -lt 100 ] && [ -d "/proc/$launcher" ] || { echo "boot failed" >&2; tail -20 "$work/log/systemd.log" >&2; exit 1; }
        sleep 0.1
    done
    echo "box up: pid $(box_pid), $state"
    ;;
ctl)  inside systemctl "$@" ;;
exec) inside "$@" ;;
stop)
    pid=$(box_pid) || { echo "not running" >&2; exit 0; }
    inside systemctl stop '*.service' '*.timer' '*.socket' 2>/dev/null || true
    kill -s RTMIN+14 "$pid" 2>/dev/null || true      # poweroff, orderly where it can
    i=0; while [ -d "/proc/$pid" ] && [ $i -lt 30 ]; do sleep 0.1; i=$((i+1)); done
    [ -d "/proc/$pid" ] && kill -KILL "$pid"         # PID 1 gone: the kernel ends the rest
    i=0; while [ -d "/proc/$pid" ] && [ $i -lt 50 ]; do sleep 0.1; i=$((i+1)); done
    rm -f "$work/init.pid" "$work/launcher.pid"
    find "$cg2/$name" -depth -type d -exec rmdir {} \; 2>/dev/null || true
    echo "box down"
    ;;
*) echo "unknown verb $verb" >&2; exit 2 ;;
esac
