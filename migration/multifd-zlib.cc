// SPDX-License-Identifier: BSD-2-Clause
// multifd-compression=zlib: RFC 1950, with a sync flush at the end of a packet.
#define ZLIB_CONST  // so that zlib.h takes input as const
#include <zlib.h>

#include <cerrno>

#include "migration/multifd-codec.h"
#include "util/try.h"

namespace ferry::migration {

namespace {

// NOLINTBEGIN(cppcoreguidelines-pro-type-reinterpret-cast): zlib's bytes are unsigned char
const Bytef* input(ConstBytes bytes) {
    return reinterpret_cast<const Bytef*>(bytes.data());
}
Bytef* output(MutBytes bytes) {
    return reinterpret_cast<Bytef*>(bytes.data());
}
// NOLINTEND(cppcoreguidelines-pro-type-reinterpret-cast)

void set_buffers(z_stream& stream, ConstBytes in, MutBytes out) {
    stream.next_in = input(in);
    stream.avail_in = static_cast<uInt>(in.size());
    stream.next_out = output(out);
    stream.avail_out = static_cast<uInt>(out.size());
}

Error failed(ErrorKind kind, std::string_view what, const z_stream& stream, int code) {
    const char* const text = stream.msg != nullptr ? stream.msg : zError(code);
    if (code == Z_MEM_ERROR) return make_errno(ENOMEM, "{}", what);
    return make_error(kind, "{}: {} ({})", what, text, code);
}

class ZlibCompressor final : public PageCompressor {
 public:
    ~ZlibCompressor() override { (void)deflateEnd(&stream_); }

    Result<> begin(int level) {
        const int code = deflateInit(&stream_, level);
        if (code == Z_OK) return {};
        return failed(ErrorKind::Internal, "deflateInit", stream_, code);
    }

 private:
    Result<size_t> put(ConstBytes page, Flush flush, MutBytes room) override {
        set_buffers(stream_, page, room);
        const int code = deflate(&stream_, flush == Flush::Yes ? Z_SYNC_FLUSH : Z_NO_FLUSH);
        if (code != Z_OK) return failed(ErrorKind::Internal, "deflate", stream_, code);
        if (stream_.avail_out == 0) {
            return make_error(ErrorKind::LimitExceeded, "a packet exceeds {} bytes",
                              kMultifdMaxCompressedBytes);
        }
        return room.size() - stream_.avail_out;
    }

    z_stream stream_{};  // points to what points to it: never moved
};

class ZlibDecompressor final : public PageDecompressor {
 public:
    ~ZlibDecompressor() override { (void)inflateEnd(&stream_); }

    Result<> begin() {
        const int code = inflateInit(&stream_);
        if (code == Z_OK) return {};
        return failed(ErrorKind::Internal, "inflateInit", stream_, code);
    }

 private:
    Result<Step> step(ConstBytes in, MutBytes out) override {
        set_buffers(stream_, in, out);
        const int code = inflate(&stream_, Z_SYNC_FLUSH);
        if (code == Z_STREAM_END) {
            return make_error(ErrorKind::Protocol, "the stream ends before the migration");
        }
        // Z_BUF_ERROR: it could not do anything, which is no error.
        if (code != Z_OK && code != Z_BUF_ERROR) {
            return failed(ErrorKind::Protocol, "broken stream", stream_, code);
        }
        return Step{.taken = in.size() - stream_.avail_in, .given = out.size() - stream_.avail_out};
    }

    z_stream stream_{};  // points to what points to it: never moved
};

}  // namespace

Result<std::unique_ptr<PageCompressor>> create_zlib_compressor(uint64_t level) {
    auto made = std::make_unique<ZlibCompressor>();
    MIG_CHECK(made->begin(static_cast<int>(level)));
    return made;
}

Result<std::unique_ptr<PageDecompressor>> create_zlib_decompressor() {
    auto made = std::make_unique<ZlibDecompressor>();
    MIG_CHECK(made->begin());
    return made;
}

}  // namespace ferry::migration
