// SPDX-License-Identifier: BSD-2-Clause
// The option table and what --help makes of it.
#include <fmt/format.h>

#include "system/vmm/options.h"
#include "system/vmm/version.h"

namespace ferry::vmm {

const std::vector<OptionHelp>& option_table() {
    static const std::vector<OptionHelp> kTable = {
        {"Machine", "machine",
         "q35|pc|none[,accel=NAME[:NAME]...][,memory-backend=ID][,dump-guest-core=on|off]",
         "machine type, 'help' lists them; given twice, the keys merge; default q35"},
        {"Machine", "M", "...", "the same as -machine"},
        {"Machine", "accel", "kvm[,dirty-ring-size=N]|qtest",
         "kvm runs the guest's CPUs; with qtest none runs, and memory, ports and devices are\n"
         "driven over -qtest; may be repeated: the first that can be used; default kvm\n"
         "dirty-ring-size: pages that a CPU writes are listed in a ring of N entries, a\n"
         "power of two, instead of a bitmap of all RAM"},
        {"Machine", "enable-kvm", "", "the same as -accel kvm"},
        {"Machine", "cpu", "MODEL[,+FEATURE][,-FEATURE][,FEATURE=on|off]",
         "what the guest's CPUs are; 'help' lists models"},
        {"Machine", "smp", "[cpus=]N[,sockets=S][,dies=D][,cores=C][,threads=T][,maxcpus=N]",
         "number of CPUs; default 1"},
        {"Machine", "m", "[size=]SIZE[k|M|G|T]", "guest RAM; MiB without suffix; default 128"},
        {"Machine", "numa", "node[,memdev=ID]", "the one node; memdev: as -machine memory-backend"},
        {"Machine", "name", "NAME[,debug-threads=on][,process=NAME]",
         "name of the VM, for query-name, and of the process"},
        {"Machine", "uuid", "UUID", "for query-uuid and validate-uuid"},
        {"Machine", "S", "", "do not start the VM; 'cont' does"},
        {"Machine", "no-shutdown", "", "keep the process when the guest has powered off"},
        {"Machine", "no-reboot", "", "a reset is a shutdown"},
        {"Machine", "action", "[reboot=reset|shutdown][,shutdown=poweroff|pause]",
         "what follows a reset, and a shutdown"},
        {"Machine", "nodefaults", "", "accepted: there are no default devices"},
        {"Machine", "no-user-config", "", "accepted: there is no configuration file"},

        {"Machine", "L", "DIR", "accepted: there is no firmware"},

        {"Boot", "drive", "file=FILE[,format=raw][,if=none,id=ID]",
         "a disk whose first sector the guest begins with, at 0x7c00 in real mode; with if=none\n"
         "the one of -device ide-hd,drive=ID"},
        {"Boot", "kernel", "FILE", "begin with an ELF (PVH, multiboot) or flat multiboot image"},
        {"Boot", "append", "TEXT", "command line of the kernel"},

        {"Objects and devices", "object", "TYPE,id=ID,...",
         "memory-backend-ram|memfd,size=SIZE\n"
         "memory-backend-file,size=SIZE,mem-path=PATH,share=on\n"
         "iommufd[,fd=N]\n"
         "ferry-workload,working-set=SIZE[,...] writes to guest memory while the VM runs;\n"
         "-object help lists types, -object TYPE,help their properties"},
        {"Objects and devices", "device", "TYPE[,id=ID][,addr=SLOT[.FN]],...",
         "vfio-pci,host=BDF|sysfsdev=PATH: a kernel VFIO device\n"
         "vfio-pci,iommufd=ID,host=BDF|sysfsdev=PATH|fd=N: the same by its own node\n"
         "vfio-pci-soft: a software device with migration and scripted faults\n"
         "-device help lists types, -device TYPE,help their properties"},

        {"Migration", "incoming", "URI|CHANNEL|defer",
         "wait for a migration: tcp:HOST:PORT, unix:PATH, fd:N, exec:COMMAND, file:PATH;\n"
         "or a channel, {\"channel-type\": \"main\", \"addr\": {...}} or main,addr.transport=...;\n"
         "defer waits for migrate-incoming"},
        {"Migration", "only-migratable", "", "refuse devices that can't migrate"},
        {"Migration", "global", "migration.NAME=VALUE",
         "presets a capability (x-NAME=on|off) or a parameter; also in the form\n"
         "driver=migration,property=NAME,value=VALUE"},

        {"Control", "qmp", "ADDRESS", "QMP server: unix:PATH,server=on,wait=off, tcp:..., stdio"},
        {"Control", "qmp-pretty", "ADDRESS", "the same, with replies over several lines"},
        {"Control", "monitor", "ADDRESS", "HMP, for people; 'none' for none"},
        {"Control", "chardev", "socket|file|stdio|null,id=ID,...",
         "socket: path=PATH or host=HOST,port=PORT or fd=N; server=on|off, wait=on|off\n"
         "file: path=PATH, append=on|off; takes output only"},
        {"Control", "mon", "[chardev=]ID[,mode=control|readline][,pretty=on|off]",
         "a monitor on a -chardev"},
        {"Control", "qtest", "unix:PATH[,server=on,wait=off]|tcp:HOST:PORT|chardev:ID",
         "the qtest protocol: memory, ports, interrupt lines, clock"},
        {"Control", "qtest-log", "FILE|none", "log of the qtest protocol; default: stderr"},
        {"Control", "display", "none", "accepted: there is no display"},
        {"Control", "nographic", "",
         "accepted: there is no display; serial ports and monitors are\n"
         "where -serial and -monitor say"},
        {"Control", "vga", "none", "accepted: there is none"},
        {"Control", "audio", "none", "accepted: there is none"},
        {"Control", "nic", "none", "accepted: there is none"},
        {"Control", "net", "none", "accepted: there is none"},
        {"Control", "serial", "file:PATH|stdio|unix:PATH|tcp:HOST:PORT|null|none|chardev:ID",
         "a 16550A at COM1; again: COM2 and on; unix and tcp take ,server=on,wait=off"},
        {"Control", "parallel", "none|null", "accepted: there is none"},

        {"Process", "trace", "PATTERN[,file=FILE]",
         "turn on trace points, e.g. 'vfio_*'; 'help' lists them; may be repeated"},
        {"Process", "pidfile", "FILE", "write the process id there; removed at the end"},
        {"Process", "version", "", "print the version"},
        {"Process", "help", "", "print this"},
        {"Process", "h", "", "print this"},
    };
    return kTable;
}

std::string version_text() {
    return fmt::format("ferry-vmm {}: a hypervisor to migrate, with QEMU's QMP and options\n",
                       kVersion);
}

std::string help_text() {
    std::string text =
        "usage: ferry-vmm [OPTION]...\n\n"
        "Runs a virtual machine that is controlled with QMP or HMP and can migrate. Options have\n"
        "QEMU's names; one or two dashes; in values ',,' stands for a comma. What does not exist\n"
        "here is refused.\n";
    std::string_view group;
    for (const OptionHelp& option : option_table()) {
        if (option.group != group) {
            group = option.group;
            text += fmt::format("\n{}:\n", group);
        }
        text += fmt::format("  -{}{}{}\n", option.name, option.argument.empty() ? "" : " ",
                            option.argument);
        for (std::string_view rest = option.help; !rest.empty();) {
            const size_t end = std::min(rest.find('\n'), rest.size());
            text += fmt::format("          {}\n", rest.substr(0, end));
            rest.remove_prefix(std::min(end + 1, rest.size()));
        }
    }
    text +=
        "\nExit status: 0 after quit or SIGTERM, SIGINT, SIGHUP; 1 after a bad command line, a\n"
        "failure to start, or a failed -incoming.\n"
        "\nExample: a VM that waits for a migration\n"
        "  ferry-vmm -accel qtest -machine q35 -m 256 -qmp unix:dst.sock,server=on,wait=off \\\n"
        "      -incoming unix:migrate.sock\n";
    return text;
}

}  // namespace ferry::vmm
