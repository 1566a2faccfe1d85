for descriptor in /proc/self/fd/*; do [ -e "$descriptor" ] && echo "${descriptor##*/}"; done
