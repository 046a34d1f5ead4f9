"""A host that is made up file by file: sysfs, procfs, udev's rules, programs on the PATH."""


def write(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)
    return path


def program(folder, name, *lines):
    """A program that prints these lines whatever it is asked."""
    path = write(folder / name, "#!/bin/sh\n" + "".join(f"echo '{line}'\n" for line in lines))
    path.chmod(0o755)
    return path


def plug(host_, product, *, node_mode=0o666, control="on"):
    """A USB device in sysfs, with its node."""
    folder = host_.root / "sys/bus/usb/devices/1-4"
    for name, text in {
        "idVendor": f"{product[0]:04x}",
        "idProduct": f"{product[1]:04x}",
        "busnum": "1",
        "devnum": "12",
        "power/control": control,
    }.items():
        write(folder / name, text + "\n")
    write(host_.root / "sys/bus/usb/devices/1-4:1.0/bInterfaceNumber", "00\n")
    write(host_.root / "dev/bus/usb/001/012", "").chmod(node_mode)
