# LXC's start-host hook: tell that the container stands, and wait until it shall run.
echo "$LXC_PID" > "$1/ready"
read -r _ < "$1/gate"
