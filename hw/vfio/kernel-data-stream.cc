// SPDX-License-Identifier: BSD-2-Clause
#include "hw/vfio/kernel-data-stream.h"

#include <cerrno>
#include <string_view>

#include "hw/vfio/uapi.h"
#include "util/try.h"

namespace ferry::vfio {

namespace {

// EAGAIN comes from drivers that save asynchronously. Their poll() need not report every change,
// so it is never waited for without end; and drivers without poll() are always "ready", so that
// number of refusals in a row means that waiting will not help.
constexpr int kPollMs = 1000;
constexpr int kMaxRefusalsWhileReady = 1000;

class KernelDataStream final : public MigDataStream {
 public:
    KernelDataStream(Kernel& kernel, KernelFile data) : kernel_(kernel), data_(std::move(data)) {}

    Result<Read> read_some(MutBytes into) override;
    Result<size_t> write_some(ConstBytes from) override;
    Result<PrecopyInfo> precopy_info() override;

 private:
    // Repeats `call` while it says EAGAIN, waiting for the descriptor in between.
    template <typename Call>
    Result<size_t> when_ready(Kernel::Event event, Call call);

    Kernel& kernel_;
    const KernelFile data_;
};

template <typename Call>
Result<size_t> KernelDataStream::when_ready(Kernel::Event event, Call call) {
    for (int refusals = 0;;) {
        Result<size_t> done = call();
        if (done || done.error().errnum() != EAGAIN) return done;
        if (refusals == kMaxRefusalsWhileReady) {
            return std::move(done).error().context("a descriptor that poll() calls ready");
        }
        MIG_TRY(const bool ready, kernel_.wait_ready(data_.fd(), event, kPollMs));
        refusals = ready ? refusals + 1 : 0;
    }
}

Result<MigDataStream::Read> KernelDataStream::read_some(MutBytes into) {
    // A read of nothing would look like the end of the image.
    if (into.empty()) return make_error(ErrorKind::InvalidArgument, "reading into no buffer");
    constexpr std::string_view kCall = "read(migration data)";
    auto count =
        when_ready(Kernel::Event::Readable, [&] { return kernel_.read(data_.fd(), into, kCall); });
    if (!count) {
        if (count.error().errnum() == ENOMSG) return Read{};
        return std::move(count).error();
    }
    if (*count > into.size()) {
        return make_errno(EIO, "{}: {} bytes into a buffer of {}", kCall, *count, into.size());
    }
    return Read{*count};
}

Result<size_t> KernelDataStream::write_some(ConstBytes from) {
    if (from.empty()) return make_error(ErrorKind::InvalidArgument, "writing no bytes");
    constexpr std::string_view kCall = "write(migration data)";
    MIG_TRY(const size_t count, when_ready(Kernel::Event::Writable,
                                           [&] { return kernel_.write(data_.fd(), from, kCall); }));
    if (count == 0 || count > from.size()) {
        return make_errno(EIO, "{}: {} of {} bytes taken", kCall, count, from.size());
    }
    return count;
}

Result<PrecopyInfo> KernelDataStream::precopy_info() {
    uapi::PrecopyInfo info{};
    info.argsz = sizeof(info);
    auto done = kernel_.ioctl(data_.fd(), uapi::kMigGetPrecopyInfo, &info,
                              "ioctl(VFIO_MIG_GET_PRECOPY_INFO)");
    if (!done) {
        Error error = std::move(done).error();
        if (error.errnum() == ENOTTY) return Error(ErrorKind::Unsupported, error.text(), ENOTTY);
        return error;
    }
    return PrecopyInfo{info.initial_bytes, info.dirty_bytes};
}

}  // namespace

std::unique_ptr<MigDataStream> make_kernel_data_stream(Kernel& kernel, KernelFile data) {
    return std::make_unique<KernelDataStream>(kernel, std::move(data));
}

}  // namespace ferry::vfio
