// SPDX-License-Identifier: BSD-2-Clause
#include "hw/char/char-backend.h"

#include "hw/char/char-endpoint.h"
#include "hw/char/char-thread.h"
#include "util/try.h"

namespace ferry::chardev {

namespace {

class NullBackend final : public CharBackend {
 public:
    size_t write(ConstBytes bytes) override { return bytes.size(); }
    void readable() override {}
    util::Registration serve(CharDevice&) override { return {}; }
};

}  // namespace

Result<std::unique_ptr<CharBackend>> CharBackend::open(const std::string& name,
                                                       const util::CharAddress& address,
                                                       util::Logger* log) {
    if (address.kind == util::CharAddress::Kind::Null) return std::make_unique<NullBackend>();
    MIG_TRY(CharEndpoint endpoint, open_endpoint(address), "{}", name);
    return CharThread::create(name, std::move(endpoint), log);
}

}  // namespace ferry::chardev
