
# Devices with what they are.
_strait_devices() {
    local -a devices
    # A colon ends the name of a device for _describe, unless it is quoted.
    devices=(${(f)"$(strait host names 2>/dev/null | sed -e 's/:/\\:/g' -e 's/\t/:/')"})
    _describe -t devices device devices
}
