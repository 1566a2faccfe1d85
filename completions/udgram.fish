# Made from the definitions of the command line by tests/generated.

# The addresses of the datagram sockets that are bound now, with their states and owners.
function __fish_udgram_addresses
    command udgram ls --candidates 2>/dev/null
end

# What can be sent to: live sockets, whichever way their pathnames are written, and directories, which may have some.
function __fish_udgram_peers
    set -l live (__fish_udgram_addresses)
    string join -- \n $live
    set -l token (commandline -ct | string replace -r '^(--[^=]*=|-[a-z]+(?=[./]))' '')
    __fish_complete_directories $token ''
    for file in (complete -C "__fish_udgram_no_command $token" | string replace -r '\t.*' '')
        test -S $file
        or continue
        for socket in $live
            set -l parts (string split -m 1 \t -- $socket)
            if test (path resolve -- $file) = (path resolve -- $parts[1])
                printf '%s\t%s\n' $file $parts[2]
                break
            end
        end
    end
end

# The descriptors that udgram would inherit, or those of the process before the colon, with what they are.
function __fish_udgram_descriptors
    set -l process (string match -rg '(?:^|=)(\d+):' -- (commandline -ct))
    if test -n "$process"
        for descriptor in /proc/$process/fd/*
            printf '%s:%s\t%s\n' $process (path basename $descriptor) (readlink $descriptor 2>/dev/null)
        end
    else
        sh -c 'for descriptor in /proc/$$/fd/*; do [ -e "$descriptor" ] && printf "%s\\t%s\\n" "${descriptor##*/}" "$(readlink "$descriptor")"; done'
    end
end

# The names of options, whole ones in capital letters for a word that begins so.
function __fish_udgram_sockopts
    set -l options \
        'acceptconn	whether it listens for connections; a datagram socket never does' \
        'bindtodevice	network interface; no effect on Unix sockets' \
        'bindtoifindex	network interface by its index; no effect on Unix sockets' \
        'bpf_extensions	BPF extensions that filters may use' \
        'broadcast	may send to broadcast addresses; no effect on Unix sockets' \
        'buf_lock	buffer sizes set explicitly: 1 send, 2 receive, 3 both' \
        'busy_poll	microseconds to poll the network device; no effect on Unix sockets' \
        'cookie	number unique to this socket until the next boot' \
        'debug	kernel debugging' \
        'domain	address family: 1, AF_UNIX' \
        'dontroute	bypass routing; no effect on Unix sockets' \
        'error	errno of the pending error; reading it clears it' \
        'get_filter	classic BPF program that arriving datagrams must pass' \
        'incoming_cpu	processor that handles arriving packets; no effect on Unix sockets' \
        'incoming_napi_id	receive queue of the last packet; 0 for Unix sockets' \
        'keepalive	keep-alive messages; no effect on datagram sockets' \
        'linger	longest wait of close(2) for unsent data; no effect on datagram sockets' \
        'lock_filter	filters can no longer be attached, changed or detached' \
        'mark	mark of sent packets for filters and routing' \
        'max_pacing_rate	largest number of bytes a second; no effect on Unix sockets' \
        'meminfo	memory that the socket uses, and datagrams dropped' \
        'netns_cookie	number of its network namespace, to which abstract names belong' \
        'nofcs	no frame check sequence; no effect on Unix sockets' \
        'no_check	no checksums; no effect on Unix sockets' \
        'oobinline	urgent data inline; no effect on datagram sockets' \
        'passcred	credentials of the sender with each datagram' \
        'passpidfd	pidfd of the sender with each datagram' \
        'passrights	descriptors may come with datagrams; if off, sending them to this socket fails' \
        'passsec	security label of the sender with each datagram' \
        'peek_off	offset at which MSG_PEEK reads, and which it advances; -1: always the start' \
        'peercred	credentials of the peer at the time of socketpair(2)' \
        'peergroups	supplementary groups of the peer at the time of socketpair(2)' \
        'peerpidfd	process that made the pair of sockets, while it lives' \
        'peersec	security label of the peer, if a security module provides one' \
        'prefer_busy_poll	busy polling before interrupts; no effect on Unix sockets' \
        'priority	priority of sent packets, 0 to 6, or more with CAP_NET_ADMIN' \
        'protocol	protocol within the family: 0' \
        'rcvbuf	receive buffer; the kernel doubles what is set, up to net.core.rmem_max. It does not bound the queue of a Unix datagram socket' \
        'rcvbufforce	SO_RCVBUF past net.core.rmem_max' \
        'rcvlowat	smallest number of bytes to receive at once; no effect on datagram sockets' \
        'rcvmark	mark of the packet with each datagram' \
        'rcvpriority	priority of the packet with each datagram' \
        'rcvtimeo	longest wait of a blocking receive; zero: no limit' \
        'reserve_mem	reserved memory; usually for TCP only' \
        'reuseaddr	bind an address still in use; no effect on Unix sockets' \
        'reuseport	several sockets on one port; no effect on Unix sockets' \
        'rxq_ovfl	count of dropped datagrams with each datagram' \
        'select_err_queue	poll(2) reports POLLPRI when the error queue is not empty' \
        'sndbuf	send buffer, which bounds the size of a datagram; the kernel doubles what is set, up to net.core.wmem_max' \
        'sndbufforce	SO_SNDBUF past net.core.wmem_max' \
        'sndlowat	smallest number of bytes to send at once: 1' \
        'sndtimeo	longest wait of a blocking send; zero: no limit' \
        'timestamp	time of arrival with each datagram, in microseconds' \
        'timestamping	timestamps to take, as SOF_TIMESTAMPING_ flags' \
        'timestampns	time of arrival with each datagram, in nanoseconds' \
        'type	type: 2, SOCK_DGRAM' \
        'wifi_status	whether wireless packets were acknowledged; no effect on Unix sockets' \
        'zerocopy	send without copying; not for Unix sockets'
    if not string match -qr '^(-[a-z]*o|--sockopt=)?S' -- (commandline -ct)
        printf '%s\n' $options
        return
    end
    for option in $options
        set -l parts (string split -m 1 \t -- $option)
        printf 'SO_%s\t%s\n' (string upper -- $parts[1]) $parts[2]
    end
end

# Names to set, which a value follows.
function __fish_udgram_settings
    __fish_udgram_sockopts | string replace \t =\t
end

# Whether the first argument of a subcommand is what comes next.
function __fish_udgram_wants_first
    set -l words (commandline -opc)
    contains -- $words[2] $argv
    or return 1
    contains -- -- $words
    and return 1
    set -e words[1..2]
    argparse -i '0/null' 'a/all' 'allow-uid=+' 'ancillary-bufsize=+' 'b/bind=+' 'c/connect=+' 'color=+' 'creds=?' 'drop' 'e/envelope' 'echo' 'exec=+' 'fd=+' 'h/help' 'm/mode=+' 'n/count=+' 'notify=?' 'o/sockopt=+' 'owner=+' 'p/protocol=+' 'pace=?' 'peek' 'pipe=+' 'q/quiet' 'queue=+' 'r/reply=?' 'rate=+' 'replace' 's/socket-fd=+' 'stats=?' 't/timeout=+' 'to=+' 'v/verbose' 'w/wait' 'window=+' -- $words 2>/dev/null
    or return 1
    set -q _flag_to[1]; or set -q _flag_socket_fd[1]
    and return 1
    not set -q argv[1]
end

# Whether CMD comes next.
function __fish_udgram_wants_program
    set -l words (commandline -opc)
    contains -- $words[2] recv exec
    and contains -- -- $words
end

# CMD, and what completes its arguments.
function __fish_udgram_program
    set -l words (commandline -opc)
    set -l dashes (contains -i -- -- $words)
    set -e words[1..$dashes]
    complete -C (string join ' ' -- (string escape -- $words) (commandline -ct))
end

# Print an optspec for argparse to handle cmd's options that are independent of any subcommand.
function __fish_udgram_global_optspecs
    string join \n q/quiet v/verbose h/help V/version
end

function __fish_udgram_needs_command
    # Figure out if the current invocation already has a command.
    set -l cmd (commandline -opc)
    set -e cmd[1]
    argparse -s (__fish_udgram_global_optspecs) -- $cmd 2>/dev/null
    or return
    if set -q argv[1]
        # Also print the command, so this can be used to figure out what it is.
        echo $argv[1]
        return 1
    end
    return 0
end

function __fish_udgram_using_subcommand
    set -l cmd (__fish_udgram_needs_command)
    test -z "$cmd"
    and return 1
    contains -- $cmd[1] $argv
end

complete -c udgram -n "__fish_udgram_needs_command" -s q -l quiet -d 'Print errors only'
complete -c udgram -n "__fish_udgram_needs_command" -s v -l verbose -d 'Also print the local and the peer address'
complete -c udgram -n "__fish_udgram_needs_command" -s h -l help -d 'Print help: -h the main options, --help all'
complete -c udgram -n "__fish_udgram_needs_command" -s V -l version -d 'Print version'
complete -c udgram -n "__fish_udgram_needs_command" -f -a "send" -d 'Send packets: each PACKET, or else each line of stdin'
complete -c udgram -n "__fish_udgram_needs_command" -f -a "recv" -d 'Bind ADDR, wait for one packet (or --count), print it or pass it to CMD'
complete -c udgram -n "__fish_udgram_needs_command" -f -a "listen" -d 'Bind ADDR, print every packet until stopped'
complete -c udgram -n "__fish_udgram_needs_command" -f -a "iter" -d 'Print the queued packets, within a total time limit'
complete -c udgram -n "__fish_udgram_needs_command" -f -a "talk" -d 'Send lines of stdin as they come, print packets as they come'
complete -c udgram -n "__fish_udgram_needs_command" -f -a "relay" -d 'Pass packets between clients of ADDR and PEER, print what passes'
complete -c udgram -n "__fish_udgram_needs_command" -f -a "ls" -d 'List datagram sockets: whose, how full, stale or stuck'
complete -c udgram -n "__fish_udgram_needs_command" -f -a "sockopt" -d 'Show or set the options of a socket'
complete -c udgram -n "__fish_udgram_needs_command" -f -a "exec" -d 'Open a socket and run CMD with it as descriptor 3'
complete -c udgram -n "__fish_udgram_needs_command" -f -a "completions" -d 'Print the completion script of a shell'
complete -c udgram -n "__fish_udgram_needs_command" -f -a "help" -d 'Print the help of udgram or of a command'
complete -c udgram -n "__fish_udgram_using_subcommand send" -s b -l bind -d 'Local address; \'\' for none [default: autobound]' -r -a "(__fish_udgram_addresses)"
complete -c udgram -n "__fish_udgram_using_subcommand send" -s s -l socket-fd -d 'Use this open socket, or the one bound to ADDR' -r -f -a "(__fish_udgram_peers; __fish_udgram_descriptors)"
complete -c udgram -n "__fish_udgram_using_subcommand send" -s o -l sockopt -d 'Set a socket option before use; may repeat' -r -f -a "(__fish_udgram_settings)"
complete -c udgram -n "__fish_udgram_using_subcommand send" -s m -l mode -d 'Permission bits of the socket file [default: 0600]' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand send" -l owner -d 'Owner, and group, of the socket file' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand send" -l to -d 'Send to this address: every argument is a packet' -r -f -a "(__fish_udgram_peers)"
complete -c udgram -n "__fish_udgram_using_subcommand send" -s p -l protocol -d 'json (default), text, raw, hex, base64, cbor, msgpack, fields, syslog' -r -f -a "json\t'One JSON value, passed through unchanged'
text\t'UTF-8 text'
raw\t'Unchanged bytes; send reads all of stdin as one packet'
hex\t'Bytes as hexadecimal digits'
base64\t'Bytes as base64'
cbor\t'One CBOR value, shown as JSON'
msgpack\t'One MessagePack value, shown as JSON'
fields\t'NAME=value lines of sd_notify(3) and journald, as JSON'
syslog\t'A log message of RFC 5424, RFC 3164 or syslog(3), as JSON'"
complete -c udgram -n "__fish_udgram_using_subcommand send" -s t -l timeout -d 'Longest wait for peer, queue, reply (250ms, 1m)' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand send" -s r -l reply -d 'Await N replies to each (default 1), or all' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand send" -l window -d 'Questions under way at once, for a server in order' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand send" -l rate -d 'At most N packets a second (or /m, /h, /ms)' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand send" -l pace -d 'Keep the gaps between the envelopes\' times' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand send" -l fd -d 'Attach a descriptor to each packet; may repeat' -r -f -a "(__fish_udgram_descriptors)"
complete -c udgram -n "__fish_udgram_using_subcommand send" -l creds -d 'Attach credentials: its own, or these' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand send" -l color -d 'Colour JSON: auto (default), always, never' -r -f -a "auto\t'On a terminal'
always\t'Everywhere'
never\t'Nowhere'"
complete -c udgram -n "__fish_udgram_using_subcommand send" -l stats -d 'Print totals at the end, on SIGUSR1, each INTERVAL' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand send" -s q -l quiet -d 'Print errors only'
complete -c udgram -n "__fish_udgram_using_subcommand send" -s v -l verbose -d 'Also print the local and the peer address'
complete -c udgram -n "__fish_udgram_using_subcommand send" -s h -l help -d 'Print help: -h the main options, --help all'
complete -c udgram -n "__fish_udgram_using_subcommand send" -l replace -d 'Take over a pathname that a live socket holds'
complete -c udgram -n "__fish_udgram_using_subcommand send" -s w -l wait -d 'Wait for a peer that does not exist, or goes away'
complete -c udgram -n "__fish_udgram_using_subcommand send" -s e -l envelope -d 'One JSON object a line: packet, sender, time, ...'
complete -c udgram -n "__fish_udgram_using_subcommand send" -s 0 -l null -d 'Packets end with a NUL instead of a line break'
complete -c udgram -n "__fish_udgram_using_subcommand send" -l drop -d 'Drop packets that cannot be sent at once'
complete -c udgram -n "__fish_udgram_using_subcommand recv" -s c -l connect -d 'Exchange packets with this peer only' -r -f -a "(__fish_udgram_peers)"
complete -c udgram -n "__fish_udgram_using_subcommand recv" -s s -l socket-fd -d 'Use this open socket, or the one bound to ADDR' -r -f -a "(__fish_udgram_peers; __fish_udgram_descriptors)"
complete -c udgram -n "__fish_udgram_using_subcommand recv" -s o -l sockopt -d 'Set a socket option before use; may repeat' -r -f -a "(__fish_udgram_settings)"
complete -c udgram -n "__fish_udgram_using_subcommand recv" -s m -l mode -d 'Permission bits of the socket file [default: 0600]' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand recv" -l owner -d 'Owner, and group, of the socket file' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand recv" -s p -l protocol -d 'json (default), text, raw, hex, base64, cbor, msgpack, fields, syslog' -r -f -a "json\t'One JSON value, passed through unchanged'
text\t'UTF-8 text'
raw\t'Unchanged bytes; send reads all of stdin as one packet'
hex\t'Bytes as hexadecimal digits'
base64\t'Bytes as base64'
cbor\t'One CBOR value, shown as JSON'
msgpack\t'One MessagePack value, shown as JSON'
fields\t'NAME=value lines of sd_notify(3) and journald, as JSON'
syslog\t'A log message of RFC 5424, RFC 3164 or syslog(3), as JSON'"
complete -c udgram -n "__fish_udgram_using_subcommand recv" -l ancillary-bufsize -d 'Buffer size for ancillary data in bytes' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand recv" -l color -d 'Colour JSON: auto (default), always, never' -r -f -a "auto\t'On a terminal'
always\t'Everywhere'
never\t'Nowhere'"
complete -c udgram -n "__fish_udgram_using_subcommand recv" -l stats -d 'Print totals at the end, on SIGUSR1, each INTERVAL' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand recv" -l queue -d 'Room for N + 1 datagrams in the queue (needs root)' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand recv" -s n -l count -d 'End after N packets' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand recv" -s t -l timeout -d 'Longest wait for each packet (250ms, \'1m 30s\')' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand recv" -l fd -d 'Number of a received descriptor in CMD; may repeat' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand recv" -s q -l quiet -d 'Print errors only'
complete -c udgram -n "__fish_udgram_using_subcommand recv" -s v -l verbose -d 'Also print the local and the peer address'
complete -c udgram -n "__fish_udgram_using_subcommand recv" -s h -l help -d 'Print help: -h the main options, --help all'
complete -c udgram -n "__fish_udgram_using_subcommand recv" -l replace -d 'Take over a pathname that a live socket holds'
complete -c udgram -n "__fish_udgram_using_subcommand recv" -s e -l envelope -d 'One JSON object a line: packet, sender, time, ...'
complete -c udgram -n "__fish_udgram_using_subcommand recv" -s 0 -l null -d 'Packets end with a NUL instead of a line break'
complete -c udgram -n "__fish_udgram_using_subcommand recv" -l creds -d 'Ask for credentials; implies --envelope'
complete -c udgram -n "__fish_udgram_using_subcommand listen" -s c -l connect -d 'Exchange packets with this peer only' -r -f -a "(__fish_udgram_peers)"
complete -c udgram -n "__fish_udgram_using_subcommand listen" -s s -l socket-fd -d 'Use this open socket, or the one bound to ADDR' -r -f -a "(__fish_udgram_peers; __fish_udgram_descriptors)"
complete -c udgram -n "__fish_udgram_using_subcommand listen" -s o -l sockopt -d 'Set a socket option before use; may repeat' -r -f -a "(__fish_udgram_settings)"
complete -c udgram -n "__fish_udgram_using_subcommand listen" -s m -l mode -d 'Permission bits of the socket file [default: 0600]' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand listen" -l owner -d 'Owner, and group, of the socket file' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand listen" -s p -l protocol -d 'json (default), text, raw, hex, base64, cbor, msgpack, fields, syslog' -r -f -a "json\t'One JSON value, passed through unchanged'
text\t'UTF-8 text'
raw\t'Unchanged bytes; send reads all of stdin as one packet'
hex\t'Bytes as hexadecimal digits'
base64\t'Bytes as base64'
cbor\t'One CBOR value, shown as JSON'
msgpack\t'One MessagePack value, shown as JSON'
fields\t'NAME=value lines of sd_notify(3) and journald, as JSON'
syslog\t'A log message of RFC 5424, RFC 3164 or syslog(3), as JSON'"
complete -c udgram -n "__fish_udgram_using_subcommand listen" -l ancillary-bufsize -d 'Buffer size for ancillary data in bytes' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand listen" -l color -d 'Colour JSON: auto (default), always, never' -r -f -a "auto\t'On a terminal'
always\t'Everywhere'
never\t'Nowhere'"
complete -c udgram -n "__fish_udgram_using_subcommand listen" -l stats -d 'Print totals at the end, on SIGUSR1, each INTERVAL' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand listen" -l queue -d 'Room for N + 1 datagrams in the queue (needs root)' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand listen" -s n -l count -d 'End after N packets' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand listen" -s t -l timeout -d 'Longest wait for each packet (250ms, \'1m 30s\')' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand listen" -l allow-uid -d 'Accept packets of this user only; may repeat' -r -f -a "(__fish_complete_users)"
complete -c udgram -n "__fish_udgram_using_subcommand listen" -l exec -d 'Run CMD for each packet; what it prints is the reply' -r
complete -c udgram -n "__fish_udgram_using_subcommand listen" -l pipe -d 'Keep one CMD: a packet is its line, its line a reply' -r
complete -c udgram -n "__fish_udgram_using_subcommand listen" -s q -l quiet -d 'Print errors only'
complete -c udgram -n "__fish_udgram_using_subcommand listen" -s v -l verbose -d 'Also print the local and the peer address'
complete -c udgram -n "__fish_udgram_using_subcommand listen" -s h -l help -d 'Print help: -h the main options, --help all'
complete -c udgram -n "__fish_udgram_using_subcommand listen" -l replace -d 'Take over a pathname that a live socket holds'
complete -c udgram -n "__fish_udgram_using_subcommand listen" -s e -l envelope -d 'One JSON object a line: packet, sender, time, ...'
complete -c udgram -n "__fish_udgram_using_subcommand listen" -s 0 -l null -d 'Packets end with a NUL instead of a line break'
complete -c udgram -n "__fish_udgram_using_subcommand listen" -l creds -d 'Ask for credentials; implies --envelope'
complete -c udgram -n "__fish_udgram_using_subcommand listen" -l peek -d 'Print what is sent to another process\'s socket'
complete -c udgram -n "__fish_udgram_using_subcommand listen" -l echo -d 'Send every datagram back to its sender'
complete -c udgram -n "__fish_udgram_using_subcommand iter" -s c -l connect -d 'Exchange packets with this peer only' -r -f -a "(__fish_udgram_peers)"
complete -c udgram -n "__fish_udgram_using_subcommand iter" -s s -l socket-fd -d 'Use this open socket, or the one bound to ADDR' -r -f -a "(__fish_udgram_peers; __fish_udgram_descriptors)"
complete -c udgram -n "__fish_udgram_using_subcommand iter" -s o -l sockopt -d 'Set a socket option before use; may repeat' -r -f -a "(__fish_udgram_settings)"
complete -c udgram -n "__fish_udgram_using_subcommand iter" -s m -l mode -d 'Permission bits of the socket file [default: 0600]' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand iter" -l owner -d 'Owner, and group, of the socket file' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand iter" -s p -l protocol -d 'json (default), text, raw, hex, base64, cbor, msgpack, fields, syslog' -r -f -a "json\t'One JSON value, passed through unchanged'
text\t'UTF-8 text'
raw\t'Unchanged bytes; send reads all of stdin as one packet'
hex\t'Bytes as hexadecimal digits'
base64\t'Bytes as base64'
cbor\t'One CBOR value, shown as JSON'
msgpack\t'One MessagePack value, shown as JSON'
fields\t'NAME=value lines of sd_notify(3) and journald, as JSON'
syslog\t'A log message of RFC 5424, RFC 3164 or syslog(3), as JSON'"
complete -c udgram -n "__fish_udgram_using_subcommand iter" -l ancillary-bufsize -d 'Buffer size for ancillary data in bytes' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand iter" -l color -d 'Colour JSON: auto (default), always, never' -r -f -a "auto\t'On a terminal'
always\t'Everywhere'
never\t'Nowhere'"
complete -c udgram -n "__fish_udgram_using_subcommand iter" -l stats -d 'Print totals at the end, on SIGUSR1, each INTERVAL' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand iter" -s n -l count -d 'End after N packets' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand iter" -s t -l timeout -d 'Time for all packets together (250ms; default 0)' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand iter" -s q -l quiet -d 'Print errors only'
complete -c udgram -n "__fish_udgram_using_subcommand iter" -s v -l verbose -d 'Also print the local and the peer address'
complete -c udgram -n "__fish_udgram_using_subcommand iter" -s h -l help -d 'Print help: -h the main options, --help all'
complete -c udgram -n "__fish_udgram_using_subcommand iter" -l replace -d 'Take over a pathname that a live socket holds'
complete -c udgram -n "__fish_udgram_using_subcommand iter" -s e -l envelope -d 'One JSON object a line: packet, sender, time, ...'
complete -c udgram -n "__fish_udgram_using_subcommand iter" -s 0 -l null -d 'Packets end with a NUL instead of a line break'
complete -c udgram -n "__fish_udgram_using_subcommand iter" -l creds -d 'Ask for credentials; implies --envelope'
complete -c udgram -n "__fish_udgram_using_subcommand iter" -l peek -d 'Leave the packets in the queue'
complete -c udgram -n "__fish_udgram_using_subcommand talk" -s s -l socket-fd -d 'Use this open socket, or the one bound to ADDR' -r -f -a "(__fish_udgram_peers; __fish_udgram_descriptors)"
complete -c udgram -n "__fish_udgram_using_subcommand talk" -s o -l sockopt -d 'Set a socket option before use; may repeat' -r -f -a "(__fish_udgram_settings)"
complete -c udgram -n "__fish_udgram_using_subcommand talk" -s p -l protocol -d 'json (default), text, raw, hex, base64, cbor, msgpack, fields, syslog' -r -f -a "json\t'One JSON value, passed through unchanged'
text\t'UTF-8 text'
raw\t'Unchanged bytes; send reads all of stdin as one packet'
hex\t'Bytes as hexadecimal digits'
base64\t'Bytes as base64'
cbor\t'One CBOR value, shown as JSON'
msgpack\t'One MessagePack value, shown as JSON'
fields\t'NAME=value lines of sd_notify(3) and journald, as JSON'
syslog\t'A log message of RFC 5424, RFC 3164 or syslog(3), as JSON'"
complete -c udgram -n "__fish_udgram_using_subcommand talk" -s t -l timeout -d 'Time to go on after stdin ends [default: 1s]' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand talk" -l color -d 'Colour JSON: auto (default), always, never' -r -f -a "auto\t'On a terminal'
always\t'Everywhere'
never\t'Nowhere'"
complete -c udgram -n "__fish_udgram_using_subcommand talk" -l stats -d 'Print totals at the end, on SIGUSR1, each INTERVAL' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand talk" -s q -l quiet -d 'Print errors only'
complete -c udgram -n "__fish_udgram_using_subcommand talk" -s v -l verbose -d 'Also print the local and the peer address'
complete -c udgram -n "__fish_udgram_using_subcommand talk" -s h -l help -d 'Print help: -h the main options, --help all'
complete -c udgram -n "__fish_udgram_using_subcommand talk" -s w -l wait -d 'Wait for a peer that does not exist, or goes away'
complete -c udgram -n "__fish_udgram_using_subcommand talk" -s e -l envelope -d 'One JSON object a line: packet, sender, time, ...'
complete -c udgram -n "__fish_udgram_using_subcommand talk" -s 0 -l null -d 'Packets end with a NUL instead of a line break'
complete -c udgram -n "__fish_udgram_using_subcommand relay" -s o -l sockopt -d 'Set an option of the socket of ADDR; may repeat' -r -f -a "(__fish_udgram_settings)"
complete -c udgram -n "__fish_udgram_using_subcommand relay" -s m -l mode -d 'Permission bits of the socket file [default: 0600]' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand relay" -l owner -d 'Owner, and group, of the socket file' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand relay" -s p -l protocol -d 'json (default), text, raw, hex, base64, cbor, msgpack, fields, syslog' -r -f -a "json\t'One JSON value, passed through unchanged'
text\t'UTF-8 text'
raw\t'Unchanged bytes; send reads all of stdin as one packet'
hex\t'Bytes as hexadecimal digits'
base64\t'Bytes as base64'
cbor\t'One CBOR value, shown as JSON'
msgpack\t'One MessagePack value, shown as JSON'
fields\t'NAME=value lines of sd_notify(3) and journald, as JSON'
syslog\t'A log message of RFC 5424, RFC 3164 or syslog(3), as JSON'"
complete -c udgram -n "__fish_udgram_using_subcommand relay" -s t -l timeout -d 'Close the socket of a client that is idle so long' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand relay" -l color -d 'Colour JSON: auto (default), always, never' -r -f -a "auto\t'On a terminal'
always\t'Everywhere'
never\t'Nowhere'"
complete -c udgram -n "__fish_udgram_using_subcommand relay" -l stats -d 'Print totals at the end, on SIGUSR1, each INTERVAL' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand relay" -s q -l quiet -d 'Print errors only'
complete -c udgram -n "__fish_udgram_using_subcommand relay" -s v -l verbose -d 'Also print the local and the peer address'
complete -c udgram -n "__fish_udgram_using_subcommand relay" -s h -l help -d 'Print help: -h the main options, --help all'
complete -c udgram -n "__fish_udgram_using_subcommand relay" -l replace -d 'Take over a pathname that a live socket holds'
complete -c udgram -n "__fish_udgram_using_subcommand ls" -l color -d 'Colour JSON: auto (default), always, never' -r -f -a "auto\t'On a terminal'
always\t'Everywhere'
never\t'Nowhere'"
complete -c udgram -n "__fish_udgram_using_subcommand ls" -s q -l quiet -d 'Print errors only'
complete -c udgram -n "__fish_udgram_using_subcommand ls" -s v -l verbose -d 'Also print the local and the peer address'
complete -c udgram -n "__fish_udgram_using_subcommand ls" -s h -l help -d 'Print help: -h the main options, --help all'
complete -c udgram -n "__fish_udgram_using_subcommand ls" -s a -l all -d 'Count each queue; list sockets without a name, too'
complete -c udgram -n "__fish_udgram_using_subcommand sockopt" -s b -l bind -d 'Local address of a new socket [default: none]' -r -a "(__fish_udgram_addresses)"
complete -c udgram -n "__fish_udgram_using_subcommand sockopt" -s c -l connect -d 'Connect the socket to this peer' -r -f -a "(__fish_udgram_peers)"
complete -c udgram -n "__fish_udgram_using_subcommand sockopt" -s s -l socket-fd -d 'Use this open socket, or the one bound to ADDR' -r -f -a "(__fish_udgram_peers; __fish_udgram_descriptors)"
complete -c udgram -n "__fish_udgram_using_subcommand sockopt" -s m -l mode -d 'Permission bits of the socket file [default: 0600]' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand sockopt" -l owner -d 'Owner, and group, of the socket file' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand sockopt" -l color -d 'Colour JSON: auto (default), always, never' -r -f -a "auto\t'On a terminal'
always\t'Everywhere'
never\t'Nowhere'"
complete -c udgram -n "__fish_udgram_using_subcommand sockopt" -s q -l quiet -d 'Print errors only'
complete -c udgram -n "__fish_udgram_using_subcommand sockopt" -s v -l verbose -d 'Also print the local and the peer address'
complete -c udgram -n "__fish_udgram_using_subcommand sockopt" -s h -l help -d 'Print help: -h the main options, --help all'
complete -c udgram -n "__fish_udgram_using_subcommand sockopt" -l replace -d 'Take over a pathname that a live socket holds'
complete -c udgram -n "__fish_udgram_using_subcommand exec" -s b -l bind -d 'Local address; \'\' for none' -r -a "(__fish_udgram_addresses)"
complete -c udgram -n "__fish_udgram_using_subcommand exec" -s c -l connect -d 'Connect the socket to this peer' -r -f -a "(__fish_udgram_peers)"
complete -c udgram -n "__fish_udgram_using_subcommand exec" -s s -l socket-fd -d 'Use this open socket, or the one bound to ADDR' -r -f -a "(__fish_udgram_peers; __fish_udgram_descriptors)"
complete -c udgram -n "__fish_udgram_using_subcommand exec" -s o -l sockopt -d 'Set a socket option before use; may repeat' -r -f -a "(__fish_udgram_settings)"
complete -c udgram -n "__fish_udgram_using_subcommand exec" -s m -l mode -d 'Permission bits of the socket file [default: 0600]' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand exec" -l owner -d 'Owner, and group, of the socket file' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand exec" -l queue -d 'Room for N + 1 datagrams in the queue (needs root)' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand exec" -l notify -d 'Take CMD\'s notifications; tell FD that it is ready' -r -f -a "(__fish_udgram_descriptors)"
complete -c udgram -n "__fish_udgram_using_subcommand exec" -s t -l timeout -d 'Longest time to READY=1 (250ms, \'1m 30s\')' -r -f
complete -c udgram -n "__fish_udgram_using_subcommand exec" -s p -l protocol -d 'Protocol of notifications: fields (default), text, ...' -r -f -a "json\t'One JSON value, passed through unchanged'
text\t'UTF-8 text'
raw\t'Unchanged bytes; send reads all of stdin as one packet'
hex\t'Bytes as hexadecimal digits'
base64\t'Bytes as base64'
cbor\t'One CBOR value, shown as JSON'
msgpack\t'One MessagePack value, shown as JSON'
fields\t'NAME=value lines of sd_notify(3) and journald, as JSON'
syslog\t'A log message of RFC 5424, RFC 3164 or syslog(3), as JSON'"
complete -c udgram -n "__fish_udgram_using_subcommand exec" -l color -d 'Colour JSON: auto (default), always, never' -r -f -a "auto\t'On a terminal'
always\t'Everywhere'
never\t'Nowhere'"
complete -c udgram -n "__fish_udgram_using_subcommand exec" -s q -l quiet -d 'Print errors only'
complete -c udgram -n "__fish_udgram_using_subcommand exec" -s v -l verbose -d 'Also print the local and the peer address'
complete -c udgram -n "__fish_udgram_using_subcommand exec" -s h -l help -d 'Print help: -h the main options, --help all'
complete -c udgram -n "__fish_udgram_using_subcommand exec" -l replace -d 'Take over a pathname that a live socket holds'
complete -c udgram -n "__fish_udgram_using_subcommand exec" -s e -l envelope -d 'One JSON object a line: packet, sender, time, ...'
complete -c udgram -n "__fish_udgram_using_subcommand completions" -s q -l quiet -d 'Print errors only'
complete -c udgram -n "__fish_udgram_using_subcommand completions" -s v -l verbose -d 'Also print the local and the peer address'
complete -c udgram -n "__fish_udgram_using_subcommand completions" -s h -l help -d 'Print help: -h the main options, --help all'
complete -c udgram -n "__fish_udgram_using_subcommand help" -s q -l quiet -d 'Print errors only'
complete -c udgram -n "__fish_udgram_using_subcommand help" -s v -l verbose -d 'Also print the local and the peer address'
complete -c udgram -n "__fish_udgram_using_subcommand help" -s h -l help -d 'Print help: -h the main options, --help all'
complete -c udgram -n "__fish_udgram_wants_first completions" -f -a "bash zsh fish elvish powershell"
complete -c udgram -n "__fish_udgram_wants_first help" -f -a "send recv listen iter talk relay ls sockopt exec completions help"
complete -c udgram -n "__fish_udgram_wants_first send talk" -f -a "(__fish_udgram_peers)"
complete -c udgram -n "__fish_udgram_wants_first recv listen iter relay" -a "(__fish_udgram_addresses)"
complete -c udgram -n "__fish_udgram_using_subcommand ls" -a "(__fish_udgram_addresses)"
complete -c udgram -n "__fish_udgram_using_subcommand relay; and not __fish_udgram_wants_first relay" -f -a "(__fish_udgram_peers)"
complete -c udgram -n "__fish_udgram_using_subcommand sockopt" -f -a "(__fish_udgram_sockopts) local peer queue"
complete -c udgram -n "__fish_udgram_wants_program" -f -a "(__fish_udgram_program)"
complete -c udgram -n "__fish_udgram_using_subcommand exec" -f
complete -c udgram -n "__fish_udgram_using_subcommand send; and not __fish_udgram_wants_first send" -f
complete -c udgram -n "__fish_udgram_using_subcommand talk; and not __fish_udgram_wants_first talk" -f
complete -c udgram -n "__fish_udgram_using_subcommand recv; and not __fish_udgram_wants_first recv" -f
complete -c udgram -n "__fish_udgram_using_subcommand listen; and not __fish_udgram_wants_first listen" -f
complete -c udgram -n "__fish_udgram_using_subcommand iter; and not __fish_udgram_wants_first iter" -f
complete -c udgram -n "__fish_udgram_using_subcommand completions; and not __fish_udgram_wants_first completions" -f
complete -c udgram -n "__fish_udgram_using_subcommand help; and not __fish_udgram_wants_first help" -f
