// SPDX-License-Identifier: BSD-2-Clause
// What a destination sends to its source.
#include <semaphore>

#include "migration/return-path.h"
#include "tests/fuzz/bytes-channel.h"

using namespace ferry;

namespace {

class Source final : public migration::ReturnPathEvents {
 public:
    void rp_pong(uint32_t value) override { (void)migration::features_in_pong(value); }
    void rp_switchover_ack() override {}
    void rp_ready() override {}
    void rp_failure(uint32_t, std::string reason) override {
        if (reason.size() > migration::kMaxReason) abort();
    }
    void rp_shut(uint32_t) override { ++shuts_; }
    void rp_ended(Result<> how) override {
        if (how && shuts_ != 1) abort();
        ended_.release();
    }
    void wait_ended() { ended_.acquire(); }

 private:
    int shuts_ = 0;  // reader's thread
    std::binary_semaphore ended_{0};
};

}  // namespace

extern "C" int LLVMFuzzerTestOneInput(const uint8_t* data, size_t size) {
    test::BytesChannel channel(test::fuzz_input(data, size));
    Source source;
    const auto reader = migration::ReturnPathReader::start(channel, source);
    if (!reader) abort();
    source.wait_ended();
    return 0;
}
