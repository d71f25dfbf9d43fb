// SPDX-License-Identifier: BSD-2-Clause
#include <gtest/gtest.h>

#include "system/vmm/options.h"

namespace ferry::vmm {
namespace {

using Arguments = std::vector<std::string>;

Result<std::variant<Options, PrintAndExit>> parse(Arguments arguments) {
    arguments.insert(arguments.begin(), {"-accel", "qtest"});
    return parse_command_line(arguments);
}

Options accepted(Arguments arguments) {
    auto parsed = parse(std::move(arguments));
    EXPECT_TRUE(parsed) << parsed.error().message();
    return parsed ? std::get<Options>(*parsed) : Options();
}

std::string refused(Arguments arguments) {
    auto parsed = parse(std::move(arguments));
    EXPECT_FALSE(parsed);
    return parsed ? "" : parsed.error().message();
}

TEST(CommandLine, WhatDoesNotExistIsRefusedByName) {
    const struct {
        Arguments arguments;
        std::string_view named;
    } kCases[] = {
        {{"-cpu", "i486"}, "i486"},
        {{"-cpu", "host,+warp"}, "unknown CPU feature 'warp'"},
        {{"-cpu", "host,warp=on"}, "unknown CPU feature 'warp'"},
        {{"-cpu", "host,+hypervisor"}, "'hypervisor'"},
        {{"-cpu", "host,avx=maybe"}, "'maybe'"},
        {{"-cpu", "host,+avx=off"}, "a sign has no value"},
        {{"-cpu", "host,migratable=off"}, "migratable=off"},
        {{"-bios", "f"}, "-bios: there is no firmware"},
        {{"-initrd", "f"}, "-initrd: "},
        {{"-numa", "cpu,node-id=0"}, "'cpu'"},
        {{"-numa", "node,mem=1G"}, "mem"},
        {{"-numa", "node", "-numa", "node"}, "one node"},
        {{"-numa", "node,nodeid=1"}, "number 0"},
        {{"-numa", "node,memdev=nope"}, "-numa node,memdev=nope"},
        {{"-numa", "node,memdev=m", "-M", "q35,memory-backend=m"}, "exclude each other"},
        {{"-machine", "q35,dump-guest-core=maybe"}, "dump-guest-core"},
        {{"-machine", "q35,aux-ram-share=maybe"}, "aux-ram-share"},
        {{"-smp", "0"}, "-smp 0"},
        {{"-smp", "4,cores=3"}, "3 CPUs"},
        {{"-smp", "2,maxcpus=4"}, "maxcpus"},
        {{"-smp", "2,frobs=1"}, "frobs"},
        {{"-smp", "255"}, "254"},
        {{"-machine", "none", "-smp", "2"}, "none"},
        {{"-accel", "kvm,frobs=1"}, "frobs"},
        {{"-accel", "kvm,dirty-ring-size=1000"}, "power of two"},
        {{"-accel", "kvm,dirty-ring-size=4294967296"}, "power of two"},
        {{"-accel", "kvm,dirty-ring-size=many"}, "dirty-ring-size"},
        {{"-accel", "qtest,dirty-ring-size=1024"}, "dirty-ring-size"},
        {{"-drive", "format=raw"}, "file"},
        {{"-drive", "file=a,format=qcow2"}, "qcow2"},
        {{"-drive", "file=a,if=virtio"}, "virtio"},
        {{"-drive", "file=a,frobs=1"}, "frobs"},
        {{"-drive", "file=a", "-drive", "file=b"}, "2 disks"},
        {{"-drive", "file=a,id=d,if=none", "-drive", "file=b,id=d,if=none"}, "duplicate"},
        {{"-device", "ide-hd,drive=d"}, "'d'"},
        {{"-device", "ide-hd"}, "drive"},
        {{"-device", "ide-hd,drive=d,secs=256,cyls=1,heads=1"}, "secs must be between 1 and 255"},
        {{"-device", "ide-hd,drive=d,secs=1,cyls=65536,heads=1"}, "between 1 and 65535"},
        {{"-device", "ide-hd,drive=d,secs=1,cyls=1,heads=17"}, "heads must be between 1 and 16"},
        // One alone is no shape.
        {{"-device", "ide-hd,drive=d,secs=63"}, "cyls must be between 1 and 65535"},
        {{"-device", "ide-hd,drive=d,heads=many"}, "many"},
        {{"-append", "x"}, "-kernel"},
        {{"disk.img"}, "disk.img"},
        {{"-m"}, "-m"},
        {{"-m", "0"}, "-m 0"},
        {{"-m", "100000B"}, "multiple"},
        {{"-m", "64,maxmem=1G"}, "maxmem"},
        {{"-machine", "isapc"}, "isapc"},
        {{"-machine", "q35,usb=off"}, "usb"},
        {{"-machine", "q35,memory-backend=nope"}, "nope"},
        {{"-device", "e1000"}, "e1000"},
        {{"-object", "rng-random,id=r"}, "rng-random"},
        {{"-object", "memory-backend-ram,size=1M"}, "id"},
        {{"-object", "memory-backend-ram,id=m"}, "size"},
        {{"-object", "memory-backend-ram,id=m,size=1M,prealloc=on"}, "prealloc"},
        {{"-object", "memory-backend-file,id=m,size=1M,mem-path=x"}, "share=on"},
        {{"-object", "ferry-workload,id=w,working-set=1M,pattern=zigzag"}, "pattern"},
        {{"-object", "iommufd,fd=3"}, "id"},
        {{"-object", "iommufd,id=i,size=1M"}, "size"},
        {{"-object", "iommufd,id=i", "-object", "iommufd,id=i"}, "duplicate"},
        {{"-serial", "pty"}, "pty"},
        {{"-vga", "std"}, "std"},
        {{"-qtest", "chardev:c"}, "'c'"},
        {{"-chardev", "pty,id=c"}, "pty"},
        {{"-chardev", "file,id=c"}, "path"},
        {{"-chardev", "file,id=c,path=a,input-path=b"}, "input-path"},
        {{"-chardev", "socket,id=c,path=a,wait=on"}, "wait"},
        {{"-chardev", "socket,id=c,path=a,reconnect=1"}, "reconnect"},
        {{"-chardev", "stdio,id=c,signal=off"}, "signal"},
        {{"-chardev", "file,id=c,path=a", "-mon", "c"}, "no input"},
        {{"-qmp", "file:a"}, "no input"},
        {{"-qmp", "pty"}, "-qmp: 'pty'"},
        {{"-chardev", "null"}, "id"},
        {{"-chardev", "null,id=c", "-chardev", "null,id=c"}, "duplicate"},
        {{"-mon", "chardev=c"}, "'c'"},
        {{"-global", "vfio-pci.x=1"}, "vfio-pci.x"},
        {{"-global", "driver=vfio-pci,property=x,value=1"}, "driver=vfio-pci"},
        {{"-global", "driver=migration,property=x-events"}, "value"},
        {{"-global", "driver=migration,property=x-events,value=on,frob=1"}, "frob"},
        {{"-uuid", "1234"}, "1234"},
        {{"-name", "a,frobs=b"}, "frobs"},
        {{"-incoming", ""}, "-incoming"},
        {{"-action", "reboot=maybe"}, "reboot"},
        {{"-action", "shutdown=reset"}, "shutdown"},
        {{"-action", "panic=none"}, "panic"},
        {{"-action", "watchdog=pause"}, "watchdog"},
        {{"-incoming", "nonsense:x"}, "-incoming nonsense:x: unknown migration protocol"},
        {{"-incoming", "tcp::99998"}, "port '99998'"},
        {{"-incoming", "nonsense"}, "Parameter 'channel-type' does not accept value 'nonsense'"},
        {{"-incoming", "main"}, "Parameter 'addr' is missing"},
        {{"-incoming", "main,addr=x"}, "Invalid parameter type for 'addr'"},
        {{"-incoming", "main,addr=x,addr.path=y"}, "below a key that has a value"},
        {{"-incoming", "main,addr.path=y,addr=x"}, "'addr' has keys below it"},
        {{"-incoming", "main,addr.a.b.c=1"}, "levels"},
        {{"-incoming", "main,addr.transport=socket,addr.type=unix"}, "addr.path"},
        {{"-incoming", "main,addr.transport=file,addr.filename=f,addr.offset=x"}, "'offset'"},
        {{"-incoming", "main,addr.transport=exec,addr.args.1=x"}, "'args.0' is missing"},
        {{"-incoming", "main,addr.transport=exec,addr.args=x"}, "args.0"},
        {{"-incoming", "cpr,addr.transport=socket,addr.type=unix,addr.path=P"}, "cpr"},
        {{"-incoming", "{\"channel-type\": \"main\""}, "JSON parse error"},
        {{"-incoming", "{}"}, "Parameter 'channel-type' is missing"},
        {{"-qmp", "tcp:localhost:65536,server=on"}, "port '65536'"},
        {{"-serial", "tcp:localhost:65536"}, "port '65536'"},
        {{"-chardev", "socket,id=c,host=localhost,port=-1"}, "port '-1'"},
    };
    for (const auto& one : kCases) {
        EXPECT_NE(refused(one.arguments).find(one.named), std::string::npos)
            << one.named << ": " << refused(one.arguments);
    }
}

std::vector<std::string> accelerators(const Arguments& arguments) {
    const auto parsed = parse_command_line(arguments);
    std::vector<std::string> names;
    if (!parsed) return names;
    for (const auto& one : std::get<Options>(*parsed).accelerators) names.push_back(one.name);
    return names;
}

TEST(CommandLine, AcceleratorsKeepTheirOrderAndKvmIsTheDefault) {
    using Names = std::vector<std::string>;
    EXPECT_EQ(accelerators({}), Names{"kvm"});
    EXPECT_EQ(accelerators({"-accel", "qtest", "-enable-kvm"}), (Names{"qtest", "kvm"}));
    EXPECT_EQ(accelerators({"-accel", "kvm", "-accel", "qtest"}), (Names{"kvm", "qtest"}));
    EXPECT_EQ(accelerators({"-accel", "tcg,thread=single"}), Names{"tcg"});
    EXPECT_EQ(accelerators({"-accel", "kvm,dirty-ring-size=0"}), Names{"kvm"});
    EXPECT_EQ(accelerators({"-accel", "kvm,dirty-ring-size=4096"}), Names{"kvm"});
    EXPECT_EQ(accelerators({"-machine", "none,accel=kvm:qtest"}), (Names{"kvm", "qtest"}));
}

TEST(CommandLine, CpusAndTheirModel) {
    EXPECT_EQ(accepted({}).cpus, 1U);
    EXPECT_EQ(accepted({"-smp", "3"}).cpus, 3U);
    EXPECT_EQ(accepted({"-smp", "cpus=8,sockets=2,cores=2,threads=2,maxcpus=8"}).cpus, 8U);
    EXPECT_EQ(accepted({"-smp", "sockets=2,cores=2"}).cpus, 4U);
    EXPECT_EQ(accepted({"-cpu", "host"}).cpu_model, "host");
}

TEST(CommandLine, FeaturesBeyondTheModelInTheirOrder) {
    std::string text;
    for (const kvm::FeatureChoice& choice :
         accepted({"-cpu", "max,+sse4.1,-avx2,tsc_deadline=off,migratable=on,pcid"}).cpu_features) {
        text += choice.shown == kvm::FeatureChoice::Shown::Yes ? '+' : '-';
        text += choice.name + " ";
    }
    EXPECT_EQ(text, "+sse4.1 -avx2 -tsc-deadline +pcid ");
}

TEST(CommandLine, OneNumaNodeNamesTheMachinesMemory) {
    EXPECT_EQ(accepted({"-numa", "node"}).memory_backend, "");
    EXPECT_EQ(accepted({"-numa", "node,nodeid=0,memdev=m", "-object",
                        "memory-backend-file,id=m,size=1M,mem-path=p,share=on"})
                  .memory_backend,
              "m");
}

TEST(CommandLine, WhatAsksForNothingIsTaken) {
    accepted({"-nographic", "-vga", "none", "-audio", "none", "-display", "none"});
    EXPECT_EQ(accepted({"-machine", "q35,aux-ram-share=on"}).core_dump, Options::CoreDump::WithRam);
    EXPECT_EQ(accepted({"-machine", "q35,dump-guest-core=off"}).core_dump,
              Options::CoreDump::WithoutRam);
    EXPECT_EQ(accepted({"-name", "a,process=b"}).process_name, "b");
}

TEST(CommandLine, MachinesByNameAndAlias) {
    EXPECT_EQ(accepted({}).machine, MachineType::Q35);
    EXPECT_EQ(accepted({"-machine", "pc"}).machine, MachineType::Pc);
    EXPECT_EQ(accepted({"-M", "ferry-pc-1.0"}).machine, MachineType::Pc);
    EXPECT_EQ(accepted({"-machine", "ferry-q35-1.0"}).machine, MachineType::Q35);
}

TEST(CommandLine, TheBootDiskInItsTwoForms) {
    EXPECT_EQ(accepted({"-drive", "file=a,format=raw"}).boot.disk, "a");
    // In any order.
    EXPECT_EQ(accepted({"-device", "ide-hd,drive=d0", "-drive", "if=none,id=d0,file=b,format=raw"})
                  .boot.disk,
              "b");
    EXPECT_EQ(accepted({"-drive", "if=none,id=d0,file=b"}).boot.disk, "");
    const Options kernel = accepted({"-kernel", "k", "-append", "a b", "-drive", "file=a"});
    EXPECT_EQ(kernel.boot.kernel, "k");
    EXPECT_EQ(kernel.boot.command_line, "a b");
    EXPECT_EQ(kernel.boot.disk, "");
}

TEST(CommandLine, TheBootDiskMayHaveAGeometry) {
    EXPECT_EQ(accepted({"-drive", "if=none,id=d0,file=b,format=raw", "-device",
                        "ide-hd,drive=d0,secs=1,cyls=1,heads=1"})
                  .boot.disk,
              "b");
    EXPECT_EQ(accepted({"-drive", "if=none,id=d0,file=b", "-device",
                        "ide-hd,drive=d0,secs=255,cyls=65535,heads=16"})
                  .boot.disk,
              "b");
    EXPECT_EQ(accepted({"-drive", "if=none,id=d0,file=b", "-device",
                        "ide-hd,drive=d0,secs=0,cyls=0,heads=0"})
                  .boot.disk,
              "b");
}

std::string incoming_at(const Arguments& arguments) {
    const auto incoming = accepted(arguments).incoming;
    return incoming && incoming->address ? to_string(*incoming->address) : "nowhere";
}

TEST(CommandLine, IncomingIsAUriOrAChannel) {
    EXPECT_FALSE(accepted({}).incoming);
    EXPECT_TRUE(accepted({"-incoming", "defer"}).incoming);
    EXPECT_EQ(incoming_at({"-incoming", "defer"}), "nowhere");
    EXPECT_EQ(incoming_at({"-incoming", "unix:a,b"}), "unix:a,b");
    EXPECT_EQ(
        incoming_at({"-incoming", R"({"channel-type": "main", "addr": {"transport": "socket",)"
                                  R"( "type": "unix", "path": "P"}})"}),
        "unix:P");
    EXPECT_EQ(
        incoming_at({"-incoming", "main,addr.transport=socket,addr.type=unix,addr.path=a,,b"}),
        "unix:a,b");
    EXPECT_EQ(incoming_at({"-incoming",
                           "channel-type=main,addr.transport=socket,addr.type=inet,"
                           "addr.host=::1,addr.port=0,addr.to=9,addr.ipv6=on"}),
              "tcp:[::1]:0,to=9,ipv6");
    EXPECT_EQ(incoming_at({"-incoming", "main,addr.transport=file,addr.filename=f,addr.offset=4k"}),
              "file:f,offset=4096");
    EXPECT_EQ(incoming_at({"-incoming", "main,addr.transport=exec,addr.args.1=b,addr.args.0=a"}),
              "exec:a b");
    EXPECT_EQ(incoming_at({"-incoming", "unix:a", "-incoming", "tcp:h:1"}), "tcp:h:1");
}

TEST(CommandLine, OneOrTwoDashesAndMergedMachine) {
    const Options options = accepted({"--machine", "none", "-M", ",memory-backend=m", "--object",
                                      "memory-backend-memfd,id=m,size=2M", "-S"});
    EXPECT_EQ(options.machine, MachineType::None);
    EXPECT_EQ(options.memory_backend, "m");
    EXPECT_EQ(options.backends.at(0).size, 2U << 20);
    EXPECT_EQ(options.autostart, Options::Autostart::No);
}

TEST(CommandLine, MemoryIsInMebibytesWithoutSuffix) {
    EXPECT_EQ(accepted({"-m", "256"}).ram_bytes, 256U << 20);
    EXPECT_EQ(accepted({"-m", "size=1G"}).ram_bytes, 1U << 30);
}

TEST(CommandLine, MonitorsAndTheirChardevsInAnyOrder) {
    const Options options =
        accepted({"-mon", "chardev=c,mode=control,pretty=on", "-chardev",
                  "socket,id=c,path=/tmp/s,server=on,wait=off", "-qmp", "stdio", "-monitor", "none",
                  "-qtest", "chardev:f", "-chardev", "socket,id=f,fd=7"});
    ASSERT_EQ(options.monitors.size(), 2U);
    EXPECT_EQ(options.monitors[0].layout, monitor::Layout::Pretty);
    const util::CharAddress& address = options.monitors[0].address;
    EXPECT_EQ(address.path, "/tmp/s");
    EXPECT_EQ(address.side, util::CharAddress::Side::Listen);
    EXPECT_EQ(address.wait, util::CharAddress::Wait::No);
    EXPECT_EQ(options.qtest->kind, util::CharAddress::Kind::Fd);
    EXPECT_EQ(options.qtest->fd, 7);
}

TEST(CommandLine, SerialPortsTakeAllKindsOfChardevs) {
    using Kind = util::CharAddress::Kind;
    const Options options =
        accepted({"-chardev", "file,id=a,path=/tmp/a,append=on", "-chardev", "stdio,id=b,signal=on",
                  "-chardev", "socket,id=c,fd=9", "-serial", "chardev:a", "-serial", "chardev:b",
                  "-serial", "chardev:c", "-serial", "file:/tmp/d"});
    ASSERT_EQ(options.serials.size(), 4U);
    EXPECT_EQ(options.serials[0].address->kind, Kind::File);
    EXPECT_EQ(options.serials[0].address->existing, util::CharAddress::Existing::Kept);
    EXPECT_EQ(options.serials[1].address->kind, Kind::Stdio);
    EXPECT_EQ(options.serials[2].address->fd, 9);
    EXPECT_EQ(options.serials[3].address->existing, util::CharAddress::Existing::Truncated);
}

TEST(CommandLine, WorkloadKeepsWhatItWasGiven) {
    const Options options =
        accepted({"-object",
                  "ferry-workload,id=w,working-set=1M,offset=2M,pages-per-second=5,pattern=rand,"
                  "fill=record,seed=0x10"});
    const qtest::WorkloadState& state = options.workloads.at(0).state;
    EXPECT_EQ(state.working_set, 1U << 20);
    EXPECT_EQ(state.offset, 2U << 20);
    EXPECT_EQ(state.pages_per_second, 5U);
    EXPECT_EQ(state.order, qtest::Order::Random);
    EXPECT_EQ(state.fill, qtest::Fill::Record);
    EXPECT_EQ(state.seed, 16U);
}

TEST(CommandLine, TheLogOfQtestGoesToStderrUnlessToldOtherwise) {
    EXPECT_EQ(accepted({}).qtest_log.to, QtestLog::To::Stderr);
    EXPECT_EQ(accepted({"-qtest-log", "none"}).qtest_log.to, QtestLog::To::Nowhere);
    const QtestLog file = accepted({"-qtest-log", "f"}).qtest_log;
    EXPECT_EQ(file.to, QtestLog::To::File);
    EXPECT_EQ(file.path, "f");
}

TEST(CommandLine, HelpAndVersionArePrinted) {
    for (const Arguments& arguments :
         {Arguments{"-help"}, Arguments{"--version"}, Arguments{"-machine", "help"},
          Arguments{"-device", "help"}, Arguments{"-device", "vfio-pci-soft,help"},
          Arguments{"-object", "help"}, Arguments{"-object", "ferry-workload,help"},
          Arguments{"-object", "iommufd,help"},
          Arguments{"-accel", "help"}, Arguments{"-trace", "help"}}) {
        const auto parsed = parse_command_line(arguments);
        ASSERT_TRUE(parsed) << parsed.error().message();
        EXPECT_FALSE(std::get<PrintAndExit>(*parsed).text.empty());
    }
}

TEST(CommandLine, HelpNamesEveryOption) {
    const std::string help = help_text();
    for (const OptionHelp& option : option_table()) {
        EXPECT_NE(help.find("  -" + std::string(option.name)), std::string::npos) << option.name;
    }
}

}  // namespace
}  // namespace ferry::vmm
