#!/bin/busybox sh
# The first process of a guest: mounts, modules, the command, its exit status, the end.
/bin/busybox mkdir -p /proc /sys /dev /tmp /run /mnt /root /sbin /usr/bin /usr/sbin
/bin/busybox mount -t proc proc /proc
/bin/busybox --install -s /bin
export PATH=/programs:/bin HOME=/root TERM=dumb
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t tmpfs tmpfs /tmp
mount -t tmpfs tmpfs /run
ln -s /proc/self/fd /dev/fd
ln -s /bin/sh /usr/bin/sh

while read -r module options; do
    # shellcheck disable=SC2086 # words, on purpose
    insmod "/modules/$module.ko" $options || echo "init: no module $module" >/dev/console
done </modules/order
mount -t configfs configfs /sys/kernel/config 2>/dev/null
ip link set lo up

# A port by its name; they appear a moment after the driver.
port() {
    while :; do
        for entry in /sys/class/virtio-ports/*; do
            [ "$(cat "$entry/name" 2>/dev/null)" = "$1" ] && echo "/dev/${entry##*/}" && return
        done
        usleep 20000
    done
}
status=$(port blkit.status)
console=$(port blkit.console)

# Functions that are for vfio-pci and not for the kernel's own driver.
for function in $(sed -n 's/.*blkit\.vfio=\([^ ]*\).*/\1/p' /proc/cmdline); do
    device=/sys/bus/pci/devices/$function
    [ -e "$device/driver" ] && echo "$function" >"$device/driver/unbind"
    echo vfio-pci >"$device/driver_override"
    echo "$function" >/sys/bus/pci/drivers_probe
done

# A port can be opened once only.
exec 3<>"$console"
/command <&3 >&3 2>&3
echo "exit=$?" >"$status"
sync
poweroff -f
