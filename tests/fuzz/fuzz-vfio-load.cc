// SPDX-License-Identifier: BSD-2-Clause
// Records of one VFIO device. Input: u8 features (bit 0 DISCARD, bit 1 CONFIG_SIZE), then for each
// section u8 kind (1 to 4), be16 length, body.
#include "tests/fuzz/bytes-channel.h"
#include "tests/unit/hw/vfio/migration-fixture.h"
#include "util/wire.h"

using namespace ferry;

namespace {

Result<> load_sections(test::Receiver& receiver, ConstBytes input) {
    while (input.size() >= 3) {
        const auto kind =
            static_cast<migration::SectionKind>(1 + (std::to_integer<int>(input[0]) & 3));
        const size_t wanted = util::load_be16(input.data() + 1);
        const ConstBytes body = input.subspan(3, std::min(wanted, input.size() - 3));
        input = input.subspan(3 + body.size());
        auto loaded = receiver.load(kind, test::Bytes(body.begin(), body.end()));
        if (!loaded) return loaded;
    }
    return receiver.validate();
}

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    if (size == 0) return 0;
    test::VfioVmFixture vm(system::RunState::InMigrate);
    auto device = vm.plug({});
    if (!device) abort();
    test::Receiver receiver(**device);
    receiver.session.its_features = {.discard = (data[0] & 1) != 0,
                                     .config_size = (data[0] & 2) != 0};
    if (!receiver.setup()) abort();
    const auto loaded = load_sections(receiver, test::fuzz_input(data, size).subspan(1));
    using Outcome = migration::SaveVMHandlers::Outcome;
    receiver.cleanup(loaded ? Outcome::Completed : Outcome::Failed);
    if ((*device)->io->open_streams() != 0) abort();
    return 0;
}
