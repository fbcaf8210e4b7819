#!/bin/sh
# What busybox's udhcpc calls when it was given an address: $1 is why, the rest is in its environment.
[ "$1" = bound ] || exit 0
ip address replace "$ip/$mask" dev "$interface"
[ -z "$router" ] || ip route replace default via "${router%% *}"
