// SPDX-License-Identifier: BSD-2-Clause
// A whole migration stream into a VM with RAM and a software device.
#include "tests/fuzz/bytes-channel.h"
#include "tests/support/test-vm-device.h"

using namespace ferry;

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    static util::SystemClock clock;
    test::TestVm vm(clock, system::RunState::InMigrate, test::Guest::Idle, "test-machine",
                    test::kFuzzRamBytes);
    const test::TestVmDevice device(vm, test::kFuzzSlot, test::fuzz_device());
    if (!vm.incoming(std::make_unique<test::BytesChannel>(test::fuzz_input(data, size)))) abort();
    test::settle(vm);
    // Without GO nobody but a person starts it.
    if (vm.status() != migration::MigrationStatus::Completed &&
        vm.state() == system::RunState::Running) {
        abort();
    }
    return 0;
}
