// SPDX-License-Identifier: BSD-2-Clause
// The PCI state in a VFIO device's configuration record, into a function of the fake kernel.
#include "migration/stream.h"
#include "tests/fuzz/bytes-channel.h"
#include "tests/unit/hw/vfio/pci-rig.h"

using namespace ferry;

namespace {

class Rig final : public test::PciFunctionTest {
 public:
    void TestBody() override {}
    void load(ConstBytes record) {
        migration::MemorySource source(record);
        migration::LoadStream in(source);
        if (function_->read_config(in)) (void)function_->apply_config();
        if (!kernel_.faults.empty()) abort();  // a call that no kernel would take
    }
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    Rig rig;
    rig.load(test::fuzz_input(data, size));
    return 0;
}
