# Made from the definitions of the command line by tests/generated.

using namespace System.Management.Automation
using namespace System.Management.Automation.Language

Register-ArgumentCompleter -Native -CommandName 'udgram' -ScriptBlock {
    param($wordToComplete, $commandAst, $cursorPosition)

    $commandElements = $commandAst.CommandElements
    $command = @(
        'udgram'
        for ($i = 1; $i -lt $commandElements.Count; $i++) {
            $element = $commandElements[$i]
            if ($element -isnot [StringConstantExpressionAst] -or
                $element.StringConstantType -ne [StringConstantType]::BareWord -or
                $element.Value.StartsWith('-') -or
                $element.Value -eq $wordToComplete) {
                break
        }
        $element.Value
    }) -join ';'

    $completions = @(switch ($command) {
        'udgram' {
            [CompletionResult]::new('-q', '-q', [CompletionResultType]::ParameterName, 'Print errors only')
            [CompletionResult]::new('--quiet', '--quiet', [CompletionResultType]::ParameterName, 'Print errors only')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Also print the local and the peer address')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Also print the local and the peer address')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help: -h in short, --help in full')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help: -h in short, --help in full')
            [CompletionResult]::new('-V', '-V ', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('--version', '--version', [CompletionResultType]::ParameterName, 'Print version')
            [CompletionResult]::new('send', 'send', [CompletionResultType]::ParameterValue, 'Send packets: each PACKET, or else each line of stdin')
            [CompletionResult]::new('recv', 'recv', [CompletionResultType]::ParameterValue, 'Bind ADDR, wait for one packet (or --count), print it or pass it to CMD')
            [CompletionResult]::new('listen', 'listen', [CompletionResultType]::ParameterValue, 'Bind ADDR, print every packet until stopped')
            [CompletionResult]::new('iter', 'iter', [CompletionResultType]::ParameterValue, 'Print the queued packets, within a total time limit')
            [CompletionResult]::new('talk', 'talk', [CompletionResultType]::ParameterValue, 'Send lines of stdin as they come, print packets as they come')
            [CompletionResult]::new('ls', 'ls', [CompletionResultType]::ParameterValue, 'List datagram sockets: whose, how full, stale or stuck')
            [CompletionResult]::new('sockopt', 'sockopt', [CompletionResultType]::ParameterValue, 'Show or set the options of a socket')
            [CompletionResult]::new('exec', 'exec', [CompletionResultType]::ParameterValue, 'Open a socket and run CMD with it as descriptor 3')
            [CompletionResult]::new('completions', 'completions', [CompletionResultType]::ParameterValue, 'Print the completion script of a shell')
            [CompletionResult]::new('help', 'help', [CompletionResultType]::ParameterValue, 'Print the help of udgram or of a command')
            break
        }
        'udgram;send' {
            [CompletionResult]::new('-b', '-b', [CompletionResultType]::ParameterName, 'Local address; '''' for none [default: autobound]')
            [CompletionResult]::new('--bind', '--bind', [CompletionResultType]::ParameterName, 'Local address; '''' for none [default: autobound]')
            [CompletionResult]::new('-s', '-s', [CompletionResultType]::ParameterName, 'Use this open socket, or the one bound to ADDR')
            [CompletionResult]::new('--socket-fd', '--socket-fd', [CompletionResultType]::ParameterName, 'Use this open socket, or the one bound to ADDR')
            [CompletionResult]::new('-o', '-o', [CompletionResultType]::ParameterName, 'Set a socket option before use; may repeat')
            [CompletionResult]::new('--sockopt', '--sockopt', [CompletionResultType]::ParameterName, 'Set a socket option before use; may repeat')
            [CompletionResult]::new('-m', '-m', [CompletionResultType]::ParameterName, 'Permission bits of the socket file [default: 0600]')
            [CompletionResult]::new('--mode', '--mode', [CompletionResultType]::ParameterName, 'Permission bits of the socket file [default: 0600]')
            [CompletionResult]::new('--owner', '--owner', [CompletionResultType]::ParameterName, 'Owner, and group, of the socket file')
            [CompletionResult]::new('--to', '--to', [CompletionResultType]::ParameterName, 'Send to this address: every argument is a packet')
            [CompletionResult]::new('-p', '-p', [CompletionResultType]::ParameterName, 'json (default), text, raw, hex, base64, cbor, msgpack, fields, syslog')
            [CompletionResult]::new('--protocol', '--protocol', [CompletionResultType]::ParameterName, 'json (default), text, raw, hex, base64, cbor, msgpack, fields, syslog')
            [CompletionResult]::new('-t', '-t', [CompletionResultType]::ParameterName, 'Longest wait for peer, queue, reply (250ms, ''1m 30s'')')
            [CompletionResult]::new('--timeout', '--timeout', [CompletionResultType]::ParameterName, 'Longest wait for peer, queue, reply (250ms, ''1m 30s'')')
            [CompletionResult]::new('-r', '-r', [CompletionResultType]::ParameterName, 'Await N replies to each (default 1; all: till timeout)')
            [CompletionResult]::new('--reply', '--reply', [CompletionResultType]::ParameterName, 'Await N replies to each (default 1; all: till timeout)')
            [CompletionResult]::new('--fd', '--fd', [CompletionResultType]::ParameterName, 'Attach a descriptor to each packet; may repeat')
            [CompletionResult]::new('--creds', '--creds', [CompletionResultType]::ParameterName, 'Attach credentials: its own, or these')
            [CompletionResult]::new('--color', '--color', [CompletionResultType]::ParameterName, 'Colour JSON: auto (default), always, never')
            [CompletionResult]::new('-q', '-q', [CompletionResultType]::ParameterName, 'Print errors only')
            [CompletionResult]::new('--quiet', '--quiet', [CompletionResultType]::ParameterName, 'Print errors only')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Also print the local and the peer address')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Also print the local and the peer address')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help: -h in short, --help in full')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help: -h in short, --help in full')
            [CompletionResult]::new('--replace', '--replace', [CompletionResultType]::ParameterName, 'Take over a pathname that a live socket holds')
            [CompletionResult]::new('-w', '-w', [CompletionResultType]::ParameterName, 'Wait for a peer that does not exist, or goes away')
            [CompletionResult]::new('--wait', '--wait', [CompletionResultType]::ParameterName, 'Wait for a peer that does not exist, or goes away')
            [CompletionResult]::new('-e', '-e', [CompletionResultType]::ParameterName, 'One JSON object a line: packet, sender, time, ...')
            [CompletionResult]::new('--envelope', '--envelope', [CompletionResultType]::ParameterName, 'One JSON object a line: packet, sender, time, ...')
            [CompletionResult]::new('--stats', '--stats', [CompletionResultType]::ParameterName, 'Print totals at the end, and on SIGUSR1')
            break
        }
        'udgram;recv' {
            [CompletionResult]::new('-c', '-c', [CompletionResultType]::ParameterName, 'Exchange packets with this peer only')
            [CompletionResult]::new('--connect', '--connect', [CompletionResultType]::ParameterName, 'Exchange packets with this peer only')
            [CompletionResult]::new('-s', '-s', [CompletionResultType]::ParameterName, 'Use this open socket, or the one bound to ADDR')
            [CompletionResult]::new('--socket-fd', '--socket-fd', [CompletionResultType]::ParameterName, 'Use this open socket, or the one bound to ADDR')
            [CompletionResult]::new('-o', '-o', [CompletionResultType]::ParameterName, 'Set a socket option before use; may repeat')
            [CompletionResult]::new('--sockopt', '--sockopt', [CompletionResultType]::ParameterName, 'Set a socket option before use; may repeat')
            [CompletionResult]::new('-m', '-m', [CompletionResultType]::ParameterName, 'Permission bits of the socket file [default: 0600]')
            [CompletionResult]::new('--mode', '--mode', [CompletionResultType]::ParameterName, 'Permission bits of the socket file [default: 0600]')
            [CompletionResult]::new('--owner', '--owner', [CompletionResultType]::ParameterName, 'Owner, and group, of the socket file')
            [CompletionResult]::new('-p', '-p', [CompletionResultType]::ParameterName, 'json (default), text, raw, hex, base64, cbor, msgpack, fields, syslog')
            [CompletionResult]::new('--protocol', '--protocol', [CompletionResultType]::ParameterName, 'json (default), text, raw, hex, base64, cbor, msgpack, fields, syslog')
            [CompletionResult]::new('--ancillary-bufsize', '--ancillary-bufsize', [CompletionResultType]::ParameterName, 'Buffer size for ancillary data in bytes')
            [CompletionResult]::new('--color', '--color', [CompletionResultType]::ParameterName, 'Colour JSON: auto (default), always, never')
            [CompletionResult]::new('-n', '-n', [CompletionResultType]::ParameterName, 'End after N packets')
            [CompletionResult]::new('--count', '--count', [CompletionResultType]::ParameterName, 'End after N packets')
            [CompletionResult]::new('-t', '-t', [CompletionResultType]::ParameterName, 'Longest wait for each packet (250ms, ''1m 30s'')')
            [CompletionResult]::new('--timeout', '--timeout', [CompletionResultType]::ParameterName, 'Longest wait for each packet (250ms, ''1m 30s'')')
            [CompletionResult]::new('--fd', '--fd', [CompletionResultType]::ParameterName, 'Number of a received descriptor in CMD; may repeat')
            [CompletionResult]::new('-q', '-q', [CompletionResultType]::ParameterName, 'Print errors only')
            [CompletionResult]::new('--quiet', '--quiet', [CompletionResultType]::ParameterName, 'Print errors only')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Also print the local and the peer address')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Also print the local and the peer address')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help: -h in short, --help in full')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help: -h in short, --help in full')
            [CompletionResult]::new('--replace', '--replace', [CompletionResultType]::ParameterName, 'Take over a pathname that a live socket holds')
            [CompletionResult]::new('-e', '-e', [CompletionResultType]::ParameterName, 'One JSON object a line: packet, sender, time, ...')
            [CompletionResult]::new('--envelope', '--envelope', [CompletionResultType]::ParameterName, 'One JSON object a line: packet, sender, time, ...')
            [CompletionResult]::new('--creds', '--creds', [CompletionResultType]::ParameterName, 'Ask for credentials; implies --envelope')
            [CompletionResult]::new('--stats', '--stats', [CompletionResultType]::ParameterName, 'Print totals at the end, and on SIGUSR1')
            break
        }
        'udgram;listen' {
            [CompletionResult]::new('-c', '-c', [CompletionResultType]::ParameterName, 'Exchange packets with this peer only')
            [CompletionResult]::new('--connect', '--connect', [CompletionResultType]::ParameterName, 'Exchange packets with this peer only')
            [CompletionResult]::new('-s', '-s', [CompletionResultType]::ParameterName, 'Use this open socket, or the one bound to ADDR')
            [CompletionResult]::new('--socket-fd', '--socket-fd', [CompletionResultType]::ParameterName, 'Use this open socket, or the one bound to ADDR')
            [CompletionResult]::new('-o', '-o', [CompletionResultType]::ParameterName, 'Set a socket option before use; may repeat')
            [CompletionResult]::new('--sockopt', '--sockopt', [CompletionResultType]::ParameterName, 'Set a socket option before use; may repeat')
            [CompletionResult]::new('-m', '-m', [CompletionResultType]::ParameterName, 'Permission bits of the socket file [default: 0600]')
            [CompletionResult]::new('--mode', '--mode', [CompletionResultType]::ParameterName, 'Permission bits of the socket file [default: 0600]')
            [CompletionResult]::new('--owner', '--owner', [CompletionResultType]::ParameterName, 'Owner, and group, of the socket file')
            [CompletionResult]::new('-p', '-p', [CompletionResultType]::ParameterName, 'json (default), text, raw, hex, base64, cbor, msgpack, fields, syslog')
            [CompletionResult]::new('--protocol', '--protocol', [CompletionResultType]::ParameterName, 'json (default), text, raw, hex, base64, cbor, msgpack, fields, syslog')
            [CompletionResult]::new('--ancillary-bufsize', '--ancillary-bufsize', [CompletionResultType]::ParameterName, 'Buffer size for ancillary data in bytes')
            [CompletionResult]::new('--color', '--color', [CompletionResultType]::ParameterName, 'Colour JSON: auto (default), always, never')
            [CompletionResult]::new('-n', '-n', [CompletionResultType]::ParameterName, 'End after N packets')
            [CompletionResult]::new('--count', '--count', [CompletionResultType]::ParameterName, 'End after N packets')
            [CompletionResult]::new('-t', '-t', [CompletionResultType]::ParameterName, 'Longest wait for each packet (250ms, ''1m 30s'')')
            [CompletionResult]::new('--timeout', '--timeout', [CompletionResultType]::ParameterName, 'Longest wait for each packet (250ms, ''1m 30s'')')
            [CompletionResult]::new('--allow-uid', '--allow-uid', [CompletionResultType]::ParameterName, 'Accept packets of this user only; may repeat')
            [CompletionResult]::new('--exec', '--exec', [CompletionResultType]::ParameterName, 'Run CMD for each packet; what it prints is the reply')
            [CompletionResult]::new('-q', '-q', [CompletionResultType]::ParameterName, 'Print errors only')
            [CompletionResult]::new('--quiet', '--quiet', [CompletionResultType]::ParameterName, 'Print errors only')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Also print the local and the peer address')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Also print the local and the peer address')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help: -h in short, --help in full')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help: -h in short, --help in full')
            [CompletionResult]::new('--replace', '--replace', [CompletionResultType]::ParameterName, 'Take over a pathname that a live socket holds')
            [CompletionResult]::new('-e', '-e', [CompletionResultType]::ParameterName, 'One JSON object a line: packet, sender, time, ...')
            [CompletionResult]::new('--envelope', '--envelope', [CompletionResultType]::ParameterName, 'One JSON object a line: packet, sender, time, ...')
            [CompletionResult]::new('--creds', '--creds', [CompletionResultType]::ParameterName, 'Ask for credentials; implies --envelope')
            [CompletionResult]::new('--stats', '--stats', [CompletionResultType]::ParameterName, 'Print totals at the end, and on SIGUSR1')
            [CompletionResult]::new('--peek', '--peek', [CompletionResultType]::ParameterName, 'Print what is sent to another process''s socket')
            [CompletionResult]::new('--echo', '--echo', [CompletionResultType]::ParameterName, 'Send every datagram back to its sender')
            break
        }
        'udgram;iter' {
            [CompletionResult]::new('-c', '-c', [CompletionResultType]::ParameterName, 'Exchange packets with this peer only')
            [CompletionResult]::new('--connect', '--connect', [CompletionResultType]::ParameterName, 'Exchange packets with this peer only')
            [CompletionResult]::new('-s', '-s', [CompletionResultType]::ParameterName, 'Use this open socket, or the one bound to ADDR')
            [CompletionResult]::new('--socket-fd', '--socket-fd', [CompletionResultType]::ParameterName, 'Use this open socket, or the one bound to ADDR')
            [CompletionResult]::new('-o', '-o', [CompletionResultType]::ParameterName, 'Set a socket option before use; may repeat')
            [CompletionResult]::new('--sockopt', '--sockopt', [CompletionResultType]::ParameterName, 'Set a socket option before use; may repeat')
            [CompletionResult]::new('-m', '-m', [CompletionResultType]::ParameterName, 'Permission bits of the socket file [default: 0600]')
            [CompletionResult]::new('--mode', '--mode', [CompletionResultType]::ParameterName, 'Permission bits of the socket file [default: 0600]')
            [CompletionResult]::new('--owner', '--owner', [CompletionResultType]::ParameterName, 'Owner, and group, of the socket file')
            [CompletionResult]::new('-p', '-p', [CompletionResultType]::ParameterName, 'json (default), text, raw, hex, base64, cbor, msgpack, fields, syslog')
            [CompletionResult]::new('--protocol', '--protocol', [CompletionResultType]::ParameterName, 'json (default), text, raw, hex, base64, cbor, msgpack, fields, syslog')
            [CompletionResult]::new('--ancillary-bufsize', '--ancillary-bufsize', [CompletionResultType]::ParameterName, 'Buffer size for ancillary data in bytes')
            [CompletionResult]::new('--color', '--color', [CompletionResultType]::ParameterName, 'Colour JSON: auto (default), always, never')
            [CompletionResult]::new('-n', '-n', [CompletionResultType]::ParameterName, 'End after N packets')
            [CompletionResult]::new('--count', '--count', [CompletionResultType]::ParameterName, 'End after N packets')
            [CompletionResult]::new('-t', '-t', [CompletionResultType]::ParameterName, 'Time for all packets together (250ms; default 0)')
            [CompletionResult]::new('--timeout', '--timeout', [CompletionResultType]::ParameterName, 'Time for all packets together (250ms; default 0)')
            [CompletionResult]::new('-q', '-q', [CompletionResultType]::ParameterName, 'Print errors only')
            [CompletionResult]::new('--quiet', '--quiet', [CompletionResultType]::ParameterName, 'Print errors only')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Also print the local and the peer address')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Also print the local and the peer address')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help: -h in short, --help in full')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help: -h in short, --help in full')
            [CompletionResult]::new('--replace', '--replace', [CompletionResultType]::ParameterName, 'Take over a pathname that a live socket holds')
            [CompletionResult]::new('-e', '-e', [CompletionResultType]::ParameterName, 'One JSON object a line: packet, sender, time, ...')
            [CompletionResult]::new('--envelope', '--envelope', [CompletionResultType]::ParameterName, 'One JSON object a line: packet, sender, time, ...')
            [CompletionResult]::new('--creds', '--creds', [CompletionResultType]::ParameterName, 'Ask for credentials; implies --envelope')
            [CompletionResult]::new('--stats', '--stats', [CompletionResultType]::ParameterName, 'Print totals at the end, and on SIGUSR1')
            [CompletionResult]::new('--peek', '--peek', [CompletionResultType]::ParameterName, 'Leave the packets in the queue')
            break
        }
        'udgram;talk' {
            [CompletionResult]::new('-s', '-s', [CompletionResultType]::ParameterName, 'Use this open socket, or the one bound to ADDR')
            [CompletionResult]::new('--socket-fd', '--socket-fd', [CompletionResultType]::ParameterName, 'Use this open socket, or the one bound to ADDR')
            [CompletionResult]::new('-o', '-o', [CompletionResultType]::ParameterName, 'Set a socket option before use; may repeat')
            [CompletionResult]::new('--sockopt', '--sockopt', [CompletionResultType]::ParameterName, 'Set a socket option before use; may repeat')
            [CompletionResult]::new('-p', '-p', [CompletionResultType]::ParameterName, 'json (default), text, raw, hex, base64, cbor, msgpack, fields, syslog')
            [CompletionResult]::new('--protocol', '--protocol', [CompletionResultType]::ParameterName, 'json (default), text, raw, hex, base64, cbor, msgpack, fields, syslog')
            [CompletionResult]::new('-t', '-t', [CompletionResultType]::ParameterName, 'Time to go on after stdin ends [default: 1s]')
            [CompletionResult]::new('--timeout', '--timeout', [CompletionResultType]::ParameterName, 'Time to go on after stdin ends [default: 1s]')
            [CompletionResult]::new('--color', '--color', [CompletionResultType]::ParameterName, 'Colour JSON: auto (default), always, never')
            [CompletionResult]::new('-q', '-q', [CompletionResultType]::ParameterName, 'Print errors only')
            [CompletionResult]::new('--quiet', '--quiet', [CompletionResultType]::ParameterName, 'Print errors only')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Also print the local and the peer address')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Also print the local and the peer address')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help: -h in short, --help in full')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help: -h in short, --help in full')
            [CompletionResult]::new('-w', '-w', [CompletionResultType]::ParameterName, 'Wait for a peer that does not exist, or goes away')
            [CompletionResult]::new('--wait', '--wait', [CompletionResultType]::ParameterName, 'Wait for a peer that does not exist, or goes away')
            [CompletionResult]::new('-e', '-e', [CompletionResultType]::ParameterName, 'One JSON object a line: packet, sender, time, ...')
            [CompletionResult]::new('--envelope', '--envelope', [CompletionResultType]::ParameterName, 'One JSON object a line: packet, sender, time, ...')
            [CompletionResult]::new('--stats', '--stats', [CompletionResultType]::ParameterName, 'Print totals at the end, and on SIGUSR1')
            break
        }
        'udgram;ls' {
            [CompletionResult]::new('--color', '--color', [CompletionResultType]::ParameterName, 'Colour JSON: auto (default), always, never')
            [CompletionResult]::new('-q', '-q', [CompletionResultType]::ParameterName, 'Print errors only')
            [CompletionResult]::new('--quiet', '--quiet', [CompletionResultType]::ParameterName, 'Print errors only')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Also print the local and the peer address')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Also print the local and the peer address')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help: -h in short, --help in full')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help: -h in short, --help in full')
            [CompletionResult]::new('-a', '-a', [CompletionResultType]::ParameterName, 'Count each queue; list sockets without a name, too')
            [CompletionResult]::new('--all', '--all', [CompletionResultType]::ParameterName, 'Count each queue; list sockets without a name, too')
            break
        }
        'udgram;sockopt' {
            [CompletionResult]::new('-b', '-b', [CompletionResultType]::ParameterName, 'Local address of a new socket [default: none]')
            [CompletionResult]::new('--bind', '--bind', [CompletionResultType]::ParameterName, 'Local address of a new socket [default: none]')
            [CompletionResult]::new('-c', '-c', [CompletionResultType]::ParameterName, 'Connect the socket to this peer')
            [CompletionResult]::new('--connect', '--connect', [CompletionResultType]::ParameterName, 'Connect the socket to this peer')
            [CompletionResult]::new('-s', '-s', [CompletionResultType]::ParameterName, 'Use this open socket, or the one bound to ADDR')
            [CompletionResult]::new('--socket-fd', '--socket-fd', [CompletionResultType]::ParameterName, 'Use this open socket, or the one bound to ADDR')
            [CompletionResult]::new('-m', '-m', [CompletionResultType]::ParameterName, 'Permission bits of the socket file [default: 0600]')
            [CompletionResult]::new('--mode', '--mode', [CompletionResultType]::ParameterName, 'Permission bits of the socket file [default: 0600]')
            [CompletionResult]::new('--owner', '--owner', [CompletionResultType]::ParameterName, 'Owner, and group, of the socket file')
            [CompletionResult]::new('--color', '--color', [CompletionResultType]::ParameterName, 'Colour JSON: auto (default), always, never')
            [CompletionResult]::new('-q', '-q', [CompletionResultType]::ParameterName, 'Print errors only')
            [CompletionResult]::new('--quiet', '--quiet', [CompletionResultType]::ParameterName, 'Print errors only')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Also print the local and the peer address')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Also print the local and the peer address')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help: -h in short, --help in full')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help: -h in short, --help in full')
            [CompletionResult]::new('--replace', '--replace', [CompletionResultType]::ParameterName, 'Take over a pathname that a live socket holds')
            break
        }
        'udgram;exec' {
            [CompletionResult]::new('-b', '-b', [CompletionResultType]::ParameterName, 'Local address; '''' for none')
            [CompletionResult]::new('--bind', '--bind', [CompletionResultType]::ParameterName, 'Local address; '''' for none')
            [CompletionResult]::new('-c', '-c', [CompletionResultType]::ParameterName, 'Connect the socket to this peer')
            [CompletionResult]::new('--connect', '--connect', [CompletionResultType]::ParameterName, 'Connect the socket to this peer')
            [CompletionResult]::new('-s', '-s', [CompletionResultType]::ParameterName, 'Use this open socket, or the one bound to ADDR')
            [CompletionResult]::new('--socket-fd', '--socket-fd', [CompletionResultType]::ParameterName, 'Use this open socket, or the one bound to ADDR')
            [CompletionResult]::new('-o', '-o', [CompletionResultType]::ParameterName, 'Set a socket option before use; may repeat')
            [CompletionResult]::new('--sockopt', '--sockopt', [CompletionResultType]::ParameterName, 'Set a socket option before use; may repeat')
            [CompletionResult]::new('-m', '-m', [CompletionResultType]::ParameterName, 'Permission bits of the socket file [default: 0600]')
            [CompletionResult]::new('--mode', '--mode', [CompletionResultType]::ParameterName, 'Permission bits of the socket file [default: 0600]')
            [CompletionResult]::new('--owner', '--owner', [CompletionResultType]::ParameterName, 'Owner, and group, of the socket file')
            [CompletionResult]::new('--notify', '--notify', [CompletionResultType]::ParameterName, 'Take CMD''s notifications; tell FD that it is ready')
            [CompletionResult]::new('-t', '-t', [CompletionResultType]::ParameterName, 'Longest time to READY=1 (250ms, ''1m 30s'')')
            [CompletionResult]::new('--timeout', '--timeout', [CompletionResultType]::ParameterName, 'Longest time to READY=1 (250ms, ''1m 30s'')')
            [CompletionResult]::new('-p', '-p', [CompletionResultType]::ParameterName, 'Protocol of notifications: fields (default), text, ...')
            [CompletionResult]::new('--protocol', '--protocol', [CompletionResultType]::ParameterName, 'Protocol of notifications: fields (default), text, ...')
            [CompletionResult]::new('--color', '--color', [CompletionResultType]::ParameterName, 'Colour JSON: auto (default), always, never')
            [CompletionResult]::new('-q', '-q', [CompletionResultType]::ParameterName, 'Print errors only')
            [CompletionResult]::new('--quiet', '--quiet', [CompletionResultType]::ParameterName, 'Print errors only')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Also print the local and the peer address')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Also print the local and the peer address')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help: -h in short, --help in full')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help: -h in short, --help in full')
            [CompletionResult]::new('--replace', '--replace', [CompletionResultType]::ParameterName, 'Take over a pathname that a live socket holds')
            [CompletionResult]::new('-e', '-e', [CompletionResultType]::ParameterName, 'One JSON object a line: packet, sender, time, ...')
            [CompletionResult]::new('--envelope', '--envelope', [CompletionResultType]::ParameterName, 'One JSON object a line: packet, sender, time, ...')
            break
        }
        'udgram;completions' {
            [CompletionResult]::new('-q', '-q', [CompletionResultType]::ParameterName, 'Print errors only')
            [CompletionResult]::new('--quiet', '--quiet', [CompletionResultType]::ParameterName, 'Print errors only')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Also print the local and the peer address')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Also print the local and the peer address')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help: -h in short, --help in full')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help: -h in short, --help in full')
            break
        }
        'udgram;help' {
            [CompletionResult]::new('-q', '-q', [CompletionResultType]::ParameterName, 'Print errors only')
            [CompletionResult]::new('--quiet', '--quiet', [CompletionResultType]::ParameterName, 'Print errors only')
            [CompletionResult]::new('-v', '-v', [CompletionResultType]::ParameterName, 'Also print the local and the peer address')
            [CompletionResult]::new('--verbose', '--verbose', [CompletionResultType]::ParameterName, 'Also print the local and the peer address')
            [CompletionResult]::new('-h', '-h', [CompletionResultType]::ParameterName, 'Print help: -h in short, --help in full')
            [CompletionResult]::new('--help', '--help', [CompletionResultType]::ParameterName, 'Print help: -h in short, --help in full')
            break
        }
    })

    $completions.Where{ $_.CompletionText -like "$wordToComplete*" } |
        Sort-Object -Property ListItemText
}
