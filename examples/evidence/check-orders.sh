#!/bin/sh
# A probe of our own: it says how the release at $1 is, as JSON. Any other end is no data.
set -eu
waiting=$(wget -qO- "http://$1/orders/waiting")
if [ "$waiting" -gt 100 ]; then
	printf '{"outcome": "fail", "got": "%s orders wait"}\n' "$waiting"
else
	printf '{"outcome": "pass"}\n'
fi
