// SPDX-License-Identifier: BSD-2-Clause
// multifd-compression=zstd: RFC 8878, one frame that is flushed at the end of a packet.
#include <zstd.h>
#include <zstd_errors.h>

#include <cerrno>

#include "migration/multifd-codec.h"
#include "util/try.h"

namespace ferry::migration {

namespace {

// The frame's header says how much of the past the source refers to, and the decoder allocates as
// much: 32 MiB, which is what level 20 uses.
constexpr int kMaxWindowLog = 25;

Error failed(ErrorKind kind, std::string_view what, size_t code) {
    if (ZSTD_getErrorCode(code) == ZSTD_error_memory_allocation) {
        return make_errno(ENOMEM, "{}", what);
    }
    return make_error(kind, "{}: {}", what, ZSTD_getErrorName(code));
}

struct Free {
    void operator()(ZSTD_CCtx* context) const { ZSTD_freeCCtx(context); }
    void operator()(ZSTD_DCtx* context) const { ZSTD_freeDCtx(context); }
};

class ZstdCompressor final : public PageCompressor {
 public:
    Result<> begin(int level) {
        if (context_ == nullptr) return make_errno(ENOMEM, "ZSTD_createCCtx");
        const size_t code = ZSTD_CCtx_setParameter(context_.get(), ZSTD_c_compressionLevel, level);
        if (ZSTD_isError(code) == 0) return {};
        return failed(ErrorKind::Internal, "compression level", code);
    }

 private:
    Result<size_t> put(ConstBytes page, Flush flush, MutBytes room) override {
        ZSTD_inBuffer in{page.data(), page.size(), 0};
        ZSTD_outBuffer out{room.data(), room.size(), 0};
        const auto mode = flush == Flush::Yes ? ZSTD_e_flush : ZSTD_e_continue;
        for (;;) {
            const size_t left = ZSTD_compressStream2(context_.get(), &out, &in, mode);
            if (ZSTD_isError(left) != 0) return failed(ErrorKind::Internal, "compressing", left);
            if (in.pos == in.size && (flush == Flush::No || left == 0)) return out.pos;
            if (out.pos == out.size) {
                return make_error(ErrorKind::LimitExceeded, "a packet exceeds {} bytes",
                                  kMultifdMaxCompressedBytes);
            }
        }
    }

    const std::unique_ptr<ZSTD_CCtx, Free> context_{ZSTD_createCCtx()};
};

class ZstdDecompressor final : public PageDecompressor {
 public:
    Result<> begin() {
        if (context_ == nullptr) return make_errno(ENOMEM, "ZSTD_createDCtx");
        const size_t code =
            ZSTD_DCtx_setParameter(context_.get(), ZSTD_d_windowLogMax, kMaxWindowLog);
        if (ZSTD_isError(code) == 0) return {};
        return failed(ErrorKind::Internal, "window size", code);
    }

 private:
    Result<Step> step(ConstBytes in, MutBytes out) override {
        ZSTD_inBuffer from{in.data(), in.size(), 0};
        ZSTD_outBuffer to{out.data(), out.size(), 0};
        const size_t wanted = ZSTD_decompressStream(context_.get(), &to, &from);
        if (ZSTD_isError(wanted) != 0) return failed(ErrorKind::Protocol, "broken stream", wanted);
        if (wanted == 0) {
            return make_error(ErrorKind::Protocol, "the frame ends before the migration");
        }
        return Step{.taken = from.pos, .given = to.pos};
    }

    const std::unique_ptr<ZSTD_DCtx, Free> context_{ZSTD_createDCtx()};
};

}  // namespace

Result<std::unique_ptr<PageCompressor>> create_zstd_compressor(uint64_t level) {
    auto made = std::make_unique<ZstdCompressor>();
    MIG_CHECK(made->begin(static_cast<int>(level)));
    return made;
}

Result<std::unique_ptr<PageDecompressor>> create_zstd_decompressor() {
    auto made = std::make_unique<ZstdDecompressor>();
    MIG_CHECK(made->begin());
    return made;
}

}  // namespace ferry::migration
