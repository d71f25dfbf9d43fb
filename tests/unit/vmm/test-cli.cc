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
        {{"-cpu", "host"}, "-cpu"},
        {{"disk.img"}, "disk.img"},
        {{"-m"}, "-m"},
        {{"-m", "0"}, "-m 0"},
        {{"-m", "100000B"}, "multiple"},
        {{"-m", "64,maxmem=1G"}, "maxmem"},
        {{"-machine", "pc"}, "pc"},
        {{"-machine", "q35,usb=off"}, "usb"},
        {{"-machine", "q35,memory-backend=nope"}, "nope"},
        {{"-device", "e1000"}, "e1000"},
        {{"-object", "rng-random,id=r"}, "rng-random"},
        {{"-object", "memory-backend-ram,size=1M"}, "id"},
        {{"-object", "memory-backend-ram,id=m"}, "size"},
        {{"-object", "memory-backend-ram,id=m,size=1M,prealloc=on"}, "prealloc"},
        {{"-object", "memory-backend-file,id=m,size=1M,mem-path=x"}, "share=on"},
        {{"-object", "ferry-workload,id=w,working-set=1M,pattern=zigzag"}, "pattern"},
        {{"-serial", "stdio"}, "stdio"},
        {{"-vga", "std"}, "std"},
        {{"-qtest", "chardev:c"}, "'c'"},
        {{"-chardev", "pty,id=c"}, "pty"},
        {{"-chardev", "null"}, "id"},
        {{"-chardev", "null,id=c", "-chardev", "null,id=c"}, "duplicate"},
        {{"-mon", "chardev=c"}, "'c'"},
        {{"-global", "vfio-pci.x=1"}, "vfio-pci.x"},
        {{"-uuid", "1234"}, "1234"},
        {{"-name", "a,process=b"}, "process"},
        {{"-incoming", ""}, "-incoming"},
    };
    for (const auto& one : kCases) {
        EXPECT_NE(refused(one.arguments).find(one.named), std::string::npos)
            << one.named << ": " << refused(one.arguments);
    }
}

TEST(CommandLine, AcceleratorIsRequiredAndTheFirstThatExistsIsUsed) {
    EXPECT_FALSE(parse_command_line({}));
    EXPECT_FALSE(parse_command_line({"-accel", "kvm"}));
    EXPECT_TRUE(parse_command_line({"-accel", "kvm", "-accel", "qtest"}));
    EXPECT_TRUE(parse_command_line({"-machine", "none,accel=kvm:qtest"}));
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
    const auto& address = std::get<monitor::MonitorAddress>(options.monitors[0].address);
    EXPECT_EQ(address.path, "/tmp/s");
    EXPECT_EQ(address.side, monitor::MonitorAddress::Side::Listen);
    EXPECT_EQ(address.wait, monitor::MonitorAddress::Wait::No);
    EXPECT_EQ(std::get<InheritedFd>(*options.qtest).number, 7);
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

TEST(CommandLine, HelpAndVersionArePrinted) {
    for (const Arguments& arguments :
         {Arguments{"-help"}, Arguments{"--version"}, Arguments{"-machine", "help"},
          Arguments{"-device", "help"}, Arguments{"-device", "vfio-pci-soft,help"},
          Arguments{"-object", "help"}, Arguments{"-object", "ferry-workload,help"},
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
