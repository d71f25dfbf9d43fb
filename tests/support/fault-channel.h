// SPDX-License-Identifier: BSD-2-Clause
// A channel that counts its calls and fails the k-th, as a broken line would: everything after it
// fails too.
#pragma once

#include <atomic>
#include <cerrno>
#include <memory>
#include <string>

#include "migration/channel.h"
#include "util/try.h"

namespace ferry::test {

class FaultChannel final : public migration::MigrationChannel {
 public:
    // `counter` is shared with the test; `fail_at` 0 never fails.
    FaultChannel(std::unique_ptr<migration::MigrationChannel> inner,
                 std::shared_ptr<std::atomic<int>> counter, int fail_at)
        : inner_(std::move(inner)), counter_(std::move(counter)), fail_at_(fail_at) {}

    std::string_view name() const override { return inner_->name(); }
    Features features() const override { return inner_->features(); }
    Result<size_t> read_some(MutBytes into) override {
        if (broken()) return failure("read");
        auto got = inner_->read_some(into);
        if (got) bytes_read_ += *got;
        return got;
    }
    Result<> write_all(std::span<const ConstBytes> parts) override {
        if (broken()) return failure("write");
        size_t bytes = 0;
        for (const ConstBytes part : parts) bytes += part.size();
        auto sent = inner_->write_all(parts);
        if (sent) bytes_written_ += bytes;
        return sent;
    }
    Result<> finish_writing() override {
        if (broken()) return failure("finish");
        return inner_->finish_writing();
    }
    void shutdown(Error reason) noexcept override { inner_->shutdown(std::move(reason)); }

 private:
    bool broken() {
        const int call = ++*counter_;
        if (fail_at_ != 0 && call >= fail_at_) {
            inner_->shutdown(failure("line"));
            return true;
        }
        return false;
    }
    static Error failure(const char* what) { return make_errno(EIO, "{}: injected fault", what); }

    std::unique_ptr<migration::MigrationChannel> inner_;
    std::shared_ptr<std::atomic<int>> counter_;
    const int fail_at_;
};

}  // namespace ferry::test
