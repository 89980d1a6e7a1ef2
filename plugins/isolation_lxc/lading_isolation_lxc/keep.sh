# Run lxc-start and end as the container's init did: lxc-start itself ends with 0 when a signal
# ended it, and tells that only in its log.
log=$1
shift
"$@"
code=$?
status=$(sed -n 's/.*ended on error (\([0-9]*\)).*/\1/p' "$log" 2>/dev/null </dev/null)
number=$(sed -n 's/.*ended on signal (\([0-9]*\)).*/\1/p' "$log" 2>/dev/null </dev/null)
ulimit -c 0
[ -n "$number" ] && kill "-$number" $$
exit "${status:-$code}"
