// SPDX-License-Identifier: BSD-2-Clause
#include "tools/ferry-stream/extract.h"

#include <fcntl.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <charconv>
#include <set>
#include <vector>

#include "tools/ferry-stream/reader.h"
#include "util/syscall.h"
#include "util/try.h"

namespace ferry::stream_tool {

namespace {

constexpr size_t kCopyBytes = 256 * 1024;

bool names_device(const std::string& name, const std::string& idstr) {
    return name == idstr || name + "/vfio" == idstr;
}

bool matches(Extract what, const SectionName& wanted, const std::string& idstr, uint32_t instance) {
    if (wanted.instance && *wanted.instance != instance) return false;
    return what == Extract::Section ? wanted.idstr == idstr : names_device(wanted.idstr, idstr);
}

// The first reading: what the stream has.
class Finder final : public IdleObserver {
 public:
    Finder(Extract what, const SectionName& wanted) : what_(what), wanted_(wanted) {}

    Result<> body(const std::string& idstr, uint32_t instance, uint64_t, uint64_t) override {
        if (what_ == Extract::Section) met(idstr, instance);
        return {};
    }
    Result<> image(const std::string& idstr, uint32_t instance, uint64_t, uint64_t) override {
        if (what_ == Extract::Image) met(idstr, instance);
        return {};
    }
    Result<> image_discarded(const std::string& idstr, uint32_t instance) override {
        if (matches(what_, wanted_, idstr, instance)) ++discards_;
        return {};
    }

    Result<> judge() const {
        if (found_.size() == 1) return {};
        if (found_.size() > 1) {
            return make_error(ErrorKind::InvalidArgument, "'{}' is ambiguous, choose one: {}",
                              wanted_.idstr, list(found_));
        }
        return make_error(ErrorKind::InvalidArgument, "{} '{}' in this stream; it has: {}",
                          what_ == Extract::Section ? "no section" : "no image of a device",
                          wanted_.idstr, list(others_));
    }
    uint64_t discards() const { return discards_; }

 private:
    using Names = std::set<std::pair<std::string, uint32_t>>;

    void met(const std::string& idstr, uint32_t instance) {
        Names& names = matches(what_, wanted_, idstr, instance) ? found_ : others_;
        if (names.size() < kMaxSectionsNamed) names.emplace(idstr, instance);
    }
    static std::string list(const Names& names) {
        std::string out;
        for (const auto& [idstr, instance] : names) {
            if (!out.empty()) out += ", ";
            out += fmt::format("{}#{}", printable(idstr), instance);
        }
        return out.empty() ? "none" : out;
    }

    const Extract what_;
    const SectionName& wanted_;
    Names found_;
    Names others_;
    uint64_t discards_ = 0;
};

// The second: copies.
class Copier final : public IdleObserver {
 public:
    Copier(const Input& input, Extract what, const SectionName& wanted, uint64_t discards,
           BorrowedFd out)
        : input_(input), what_(what), wanted_(wanted), discards_(discards), out_(out) {}

    Result<> body(const std::string& idstr, uint32_t instance, uint64_t offset,
                  uint64_t size) override {
        if (what_ != Extract::Section || !matches(what_, wanted_, idstr, instance)) return {};
        return copy(offset, size);
    }
    Result<> image(const std::string& idstr, uint32_t instance, uint64_t offset,
                   uint64_t size) override {
        if (what_ != Extract::Image || !matches(what_, wanted_, idstr, instance)) return {};
        if (discards_ != 0) return {};  // of a session that ended
        return copy(offset, size);
    }
    Result<> image_discarded(const std::string& idstr, uint32_t instance) override {
        if (matches(what_, wanted_, idstr, instance) && discards_ != 0) --discards_;
        return {};
    }
    const Extracted& extracted() const { return extracted_; }

 private:
    Result<> copy(uint64_t offset, uint64_t size) {
        ++extracted_.pieces;
        while (size != 0) {
            const MutBytes room = MutBytes(buffer_).first(std::min<uint64_t>(size, buffer_.size()));
            MIG_TRY(const size_t got, input_.read_at(offset, room));
            if (got != room.size()) return make_errno(EIO, "{}: became shorter", input_.name());
            MIG_CHECK(write(room));
            offset += got;
            size -= got;
        }
        return {};
    }
    Result<> write(ConstBytes bytes) {
        extracted_.bytes += bytes.size();
        while (!bytes.empty()) {
            MIG_TRY(const size_t put, util::write_fd(out_, bytes, "write"));
            bytes = bytes.subspan(put);
        }
        return {};
    }

    const Input& input_;
    const Extract what_;
    const SectionName& wanted_;
    uint64_t discards_;
    const BorrowedFd out_;
    std::vector<std::byte> buffer_ = std::vector<std::byte>(kCopyBytes);
    Extracted extracted_;
};

// Emptied only when it is known not to be the input.
Result<UniqueFd> open_output(const Input& input, const std::string& path) {
    MIG_TRY(UniqueFd fd, util::open_file(path, O_WRONLY | O_CREAT | O_NOCTTY, 0644));
    MIG_TRY(const bool same, input.is_same_file(fd.borrow()));
    if (same) {
        return make_error(ErrorKind::InvalidArgument, "{} is the stream itself", path);
    }
    struct stat info{};
    MIG_CHECK(util::check_call(::fstat(fd.raw(), &info), "fstat(" + path + ")"));
    if (S_ISREG(info.st_mode)) {
        MIG_CHECK(util::check_call(::ftruncate(fd.raw(), 0), "ftruncate(" + path + ")"));
    }
    return fd;
}

}  // namespace

Result<SectionName> parse_section_name(std::string_view text) {
    SectionName name;
    const size_t mark = text.rfind('#');
    name.idstr = text.substr(0, mark);
    if (mark != std::string_view::npos) {
        const std::string_view digits = text.substr(mark + 1);
        uint32_t instance = 0;
        const auto parsed = std::from_chars(digits.data(), digits.data() + digits.size(), instance);
        if (parsed.ec != std::errc() || parsed.ptr != digits.data() + digits.size()) {
            return make_error(ErrorKind::InvalidArgument,
                              "'{}': a number has to follow '#', the instance", text);
        }
        name.instance = instance;
    }
    if (name.idstr.empty()) {
        return make_error(ErrorKind::InvalidArgument, "'{}' names no section", text);
    }
    return name;
}

Result<Extracted> extract(const Input& input, Findings& findings, Extract what,
                          const SectionName& name, const std::string& path) {
    Finder finder(what, name);
    MIG_CHECK(StreamReader(input, findings, finder, Detail::Summary).run());
    MIG_CHECK(finder.judge());
    MIG_TRY(const UniqueFd out, open_output(input, path));
    Copier copier(input, what, name, finder.discards(), out.borrow());
    Findings told_already;
    MIG_CHECK(StreamReader(input, told_already, copier, Detail::Summary).run(), "{}", path);
    return copier.extracted();
}

}  // namespace ferry::stream_tool
