# A guest with how it stands, or what is asked of the only one.
_strait_guests() {
    local -a guests
    guests=(${(f)"$(strait ctl names 2>/dev/null | sed -e 's/\t/:/')"})
    _describe -t guests guest guests
    _strait__subcmd__ctl_commands
}

# What strait-bench takes, as it says itself.
_strait_bench() {
    (( $+functions[_strait-bench] )) || eval "$(strait bench completions zsh 2>/dev/null)"
    (( $+functions[_strait-bench] )) || return 1
    words=(strait-bench "${words[@]}")
    (( CURRENT++ ))
    _strait-bench
}
