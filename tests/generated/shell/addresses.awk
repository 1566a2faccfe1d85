NR > 1 && $5 == "0002" && NF > 7 {
    for (i = 0; i < 7; i++) sub(/^ *[^ ]+ +/, "")
    if (/^@/) {
        gsub(/\\/, "&&")
        if (length($0) == 108 && match($0, /@@*$/)) {
            padding = RLENGTH
            $0 = substr($0, 1, RSTART - 1)
            while (padding--) $0 = $0 "\\0"
        }
    }
    if (!seen[$0]++) print
}
