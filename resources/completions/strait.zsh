
# Devices with what they are.
_strait_devices() {
    local -a devices
    # A colon ends the name of a device for _describe, unless it is quoted.
    devices=(${(f)"$(strait host names 2>/dev/null | sed -e 's/:/\\:/g' -e 's/\t/:/')"})
    _describe -t devices device devices
}

# A guest with how it stands, or what is asked of the only one.
_strait_guests() {
    local -a guests
    guests=(${(f)"$(strait ctl names 2>/dev/null | sed -e 's/\t/:/')"})
    _describe -t guests guest guests
    _strait__subcmd__ctl_commands
}
